// What stands on the page is read once; from then on, events say what changes.

import { EventStream } from "/client/mobius-mdm.js";

const ROWS = 50;
const EVENTS = 20;

const element = (id) => document.getElementById(id);
const tell = (text) => (element("trouble").textContent = text);

// ---- The session. Tokens are in this memory only: a reload signs out. ----

let session;
let refreshing;

/** The refresh token works once: whoever needs a new access token meanwhile waits for the same. */
function refresh() {
  refreshing ??= (async () => {
    try {
      const body = { refresh_token: session?.refresh_token };
      const { status, answer } = await request("POST", "/auth/refresh", body);
      if (status === 401 || status === 403 || status === 422) session = undefined;
      else if (status === 200) session = answer;
      else throw new Error(`the session cannot be renewed at the moment (${status})`);
      return session?.token;
    } finally {
      refreshing = undefined;
    }
  })();
  return refreshing;
}

async function request(method, path, body, token) {
  const headers = {};
  if (body) headers["content-type"] = "application/json";
  if (token) headers.authorization = `Bearer ${token}`;
  const response = await fetch(`/api/v1${path}`, { method, headers, body: body && JSON.stringify(body) });
  const text = await response.text();
  return { status: response.status, answer: text ? JSON.parse(text) : undefined };
}

/** Reads from the API; nothing if there is no such thing. */
async function read(path) {
  let { status, answer } = await request("GET", path, undefined, session?.token);
  if (status === 401 && session) {
    ({ status, answer } = await request("GET", path, undefined, await refresh()));
  }
  if (status === 404) return undefined;
  if (status !== 200) throw new Error(answer?.detail ?? `${path}: ${status}`);
  return answer;
}

// ---- The tables: which columns, and how a row is found and read. ----

const time = (text) => new Date(text).toLocaleTimeString();
const nameOf = (kind, id) => tables[kind].rows.get(id)?.object[tables[kind].columns[0]] ?? id.slice(0, 8);

const tables = {
  devices: { path: "/devices", list: "devices", columns: ["hostname", "platform", "status", "os_version"] },
  commands: { path: "/commands", list: "commands", columns: ["command", "device", "status"] },
  policies: { path: "/policies", list: "policies", columns: ["name", "platform", "enabled", "version"] },
  groups: { path: "/device-groups", list: "device_groups", columns: ["name", "device_count"] },
};
for (const table of Object.values(tables)) table.rows = new Map();

function text(kind, object, column) {
  if (column === "device") return nameOf("devices", object.device_id);
  if (column === "enabled") return object.enabled ? "yes" : "no";
  return String(object[column] ?? "");
}

/** Shows the object, in its row or in a new one on top. */
function show(kind, object, note) {
  const { columns, rows } = tables[kind];
  let row = rows.get(object.id);
  if (!row) {
    row = { line: document.createElement("tr"), object: {} };
    row.line.dataset.id = object.id;
    columns.forEach((_, place) => {
      const cell = document.createElement(place === 0 ? "th" : "td");
      if (place === 0) cell.scope = "row";
      row.line.append(cell);
    });
    row.line.append(document.createElement("td"));
    rows.set(object.id, row);
    element(kind).prepend(row.line);
    if (rows.size > ROWS) remove(kind, element(kind).lastElementChild.dataset.id);
  }
  Object.assign(row.object, object);
  columns.forEach((column, place) => (row.line.children[place].textContent = text(kind, row.object, column)));
  if (note) {
    row.line.lastElementChild.textContent = note;
    // Taken off and put on, the class starts its animation anew.
    row.line.classList.remove("fresh");
    void row.line.offsetWidth;
    row.line.classList.add("fresh");
  }
}

function remove(kind, id) {
  tables[kind].rows.get(id)?.line.remove();
  tables[kind].rows.delete(id);
}

function clear(kind) {
  for (const id of [...tables[kind].rows.keys()]) remove(kind, id);
}

/** Changes what is shown; what is not shown yet is read. */
async function update(kind, id, change, note) {
  if (tables[kind].rows.has(id)) show(kind, { id, ...change }, note);
  else await reread(kind, id, note);
}

async function reread(kind, id, note) {
  const object = await read(`${tables[kind].path}/${id}`);
  if (object) show(kind, object, note);
  else remove(kind, id);
}

async function load() {
  // Devices first: commands show their names.
  for (const [kind, { path, list }] of Object.entries(tables)) {
    const answer = await read(`${path}?limit=${ROWS}${kind === "commands" ? "&sort=-created_at" : ""}`);
    clear(kind);
    for (const object of answer[list].reverse()) show(kind, object);
  }
}

// ---- What each type of event changes. ----

const changes = {
  async device_status_change({ data, timestamp }) {
    const note = `${time(timestamp)} ${data.old_status || "new"} → ${data.new_status}`;
    await update("devices", data.device_id, { status: data.new_status }, note);
  },
  async device_updated({ data: { device_id, ...change }, timestamp }) {
    await update("devices", device_id, change, `${time(timestamp)} updated`);
  },
  async command_execution({ data: { command_id, status }, timestamp }) {
    await update("commands", command_id, { status }, `${time(timestamp)} ${status}`);
  },
  async policy_changed({ data: { policy_id, action, ...change }, timestamp }) {
    if (action === "deleted") remove("policies", policy_id);
    else await update("policies", policy_id, change, `${time(timestamp)} ${action}`);
  },
  async policy_assignment({ data: { policy_id, device_id, group_id, action }, timestamp }) {
    const target = device_id ? nameOf("devices", device_id) : nameOf("groups", group_id);
    await update("policies", policy_id, {}, `${time(timestamp)} ${action}: ${target}`);
  },
  async compliance_change({ data: { policy_id, device_id, new_state }, timestamp }) {
    const note = `${time(timestamp)} ${nameOf("policies", policy_id)}: ${new_state}`;
    await update("devices", device_id, {}, note);
  },
  async group_membership({ data: { group_id, device_id, action }, timestamp }) {
    // The event tells of one device; how many there are now, the server counts.
    await reread("groups", group_id, `${time(timestamp)} ${action}: ${nameOf("devices", device_id)}`);
  },
};

function list({ type, timestamp, data }) {
  const line = document.createElement("li");
  const when = document.createElement("time");
  when.dateTime = timestamp;
  when.textContent = time(timestamp);
  const what = document.createElement("span");
  what.textContent = JSON.stringify(data);
  line.append(when, ` ${type} `, what);
  element("events").prepend(line);
  if (element("events").children.length > EVENTS) element("events").lastElementChild.remove();
}

// ---- The stream. ----

let stream;

async function follow() {
  stream = new EventStream({
    token: session.token,
    // Perhaps a newer one is here already, which reading from the API needed.
    getToken: (inUse) => (session && session.token !== inUse ? session.token : refresh()),
  });
  let loading;
  const reload = () => (loading = load().catch((error) => tell(error.message)));
  // The stream comes first: what changes while the tables are read is applied after it.
  const loaded = stream.on("welcome", () => {
    loaded();
    reload();
  });
  stream.on("resync", reload);
  stream.on("state", showState);
  try {
    for await (const event of stream) {
      await loading;
      list(event);
      await changes[event.type]?.(event).catch((error) => tell(error.message));
    }
  } catch (error) {
    tell(error.message);
  }
  session = undefined;
  showSignIn(true);
}

const STATES = {
  connecting: () => "connecting",
  open: () => "connected: events come as they happen",
  waiting: ({ delay }) => `disconnected: trying again in ${(delay / 1_000).toFixed(1)} s`,
  paused: () => "catching up",
  closed: ({ reason }) => `not connected: ${reason}`,
};

function showState(change) {
  element("connection").dataset.state = change.state;
  element("connection").textContent = STATES[change.state](change);
}

function showSignIn(shown) {
  element("sign-in").hidden = !shown;
  element("board").hidden = shown;
  element("sign-out").hidden = shown;
  if (!shown) return;
  // The next user may not be allowed to see what this one saw.
  element("events").replaceChildren();
  for (const kind of Object.keys(tables)) clear(kind);
  element("password").focus();
}

element("sign-in").addEventListener("submit", async (submitted) => {
  submitted.preventDefault();
  tell("");
  const wish = { email: element("email").value, password: element("password").value };
  if (element("totp").value) wish.totp = element("totp").value;
  try {
    const { status, answer } = await request("POST", "/auth/login", wish);
    if (status !== 200) return tell(answer.detail);
    session = answer;
    element("password").value = "";
    element("totp").value = "";
    showSignIn(false);
    follow();
  } catch (error) {
    tell(error.message);
  }
});

element("sign-out").addEventListener("click", async () => {
  const { token } = session ?? {};
  stream?.close();
  if (token) await request("POST", "/auth/logout", undefined, token).catch((error) => tell(error.message));
});
