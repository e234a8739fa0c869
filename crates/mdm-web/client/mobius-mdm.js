/**
 * The event stream of Mobius MDM, for browsers and Node. One file without dependencies.
 *
 *     const stream = new EventStream({ url: "https://mdm.example.org", getToken });
 *     stream.on("device_updated", (event) => show(event.data.hostname));
 *
 * The server keeps a log and says with every frame how far the client has come. This class keeps
 * that cursor and, after any break, goes on behind it: each event once, in the log's order. What
 * the frames mean stands in docs/events.md, the types in mobius-mdm.d.ts.
 */

/** The bound of the random wait before a reconnection: it begins here, doubles, and ends there. */
const FIRST_BOUND_MS = 1_000;
const LAST_BOUND_MS = 60_000;
/** A connection that held for so long was a good one: the next break starts at the first bound. */
const GOOD_AFTER_MS = 10_000;
/** How long the server may take to its first frame. */
const WELCOME_PATIENCE_MS = 30_000;
/** After so many heartbeats' time without a frame, the connection counts as dead. */
const SILENT_HEARTBEATS = 2.5;
/** How many events may wait for a `for await` loop. */
const MAX_QUEUED = 1_000;

const NORMAL = 1000;
const BAD_MESSAGE = 4400;
const TOKEN_EXPIRED = 4401;
const SESSION_ENDED = 4403;

/** Why a stream ended for good. `code` is the WebSocket close code. */
export class StreamClosedError extends Error {
  constructor(code, reason) {
    super(`the event stream ended: ${reason} (${code})`);
    this.name = "StreamClosedError";
    this.code = code;
    this.reason = reason;
  }
}

/** What the server did not take. `code` is one of docs/events.md, such as `INVALID_FILTER`. */
export class StreamMessageError extends Error {
  constructor(code, detail) {
    super(`${code}: ${detail}`);
    this.name = "StreamMessageError";
    this.code = code;
  }
}

/** A subscription that outlives its connections. It connects as soon as it is made. */
export class EventStream {
  #url;
  #token;
  #getToken;
  #getTicket;
  #WebSocket;
  #setTimeout;
  #clearTimeout;
  #random;
  #maxQueued;

  #listeners = new Map();
  #filters;
  /** The last filters that the server took. */
  #goodFilters;
  #cursor;
  #state = "connecting";
  /** The present connection or the attempt at one. What comes from an earlier one is ignored. */
  #connection;
  #bound = FIRST_BOUND_MS;
  #timers = {};
  /** Whether the token may be the reason why there is no connection. */
  #tokenInDoubt = false;
  #refreshing;
  /** What a `for await` loop has not taken yet: events, or the loop itself that waits for one. */
  #reader;
  /** Why the server ended the stream. */
  #ended;

  constructor(options = {}) {
    this.#url = socketUrl(options.url ?? globalThis.location?.origin);
    this.#token = options.token;
    this.#getToken = options.getToken;
    this.#getTicket = options.getTicket;
    if (!this.#token && !this.#getToken && !this.#getTicket) {
      throw new TypeError("give one of token, getToken and getTicket");
    }
    this.#WebSocket = options.WebSocket ?? globalThis.WebSocket;
    if (!this.#WebSocket) {
      throw new TypeError("there is no global WebSocket here: pass one as the option WebSocket");
    }
    // Called with the right `this`: browsers refuse a bare setTimeout that was taken from elsewhere.
    this.#setTimeout = options.setTimeout ?? ((callback, ms) => globalThis.setTimeout(callback, ms));
    this.#clearTimeout = options.clearTimeout ?? ((timer) => globalThis.clearTimeout(timer));
    this.#random = options.random ?? Math.random;
    this.#maxQueued = options.maxQueued ?? MAX_QUEUED;
    this.#filters = normalFilters(options);
    this.#goodFilters = this.#filters;
    this.#cursor = options.after;
    // Later than the caller's next lines, so that no listener that they add misses anything.
    queueMicrotask(() => this.#state !== "closed" && this.#connect());
  }

  /** `connecting`, `open`, `waiting` (before a reconnection), `paused` (the loop is slow), `closed`. */
  get state() {
    return this.#state;
  }

  /** Behind which event to go on. Events that still wait for a `for await` loop are not behind it. */
  get cursor() {
    return this.#reader?.queue.length ? this.#reader.cursor : this.#cursor;
  }

  /** The filters in force, or about to be. */
  get filters() {
    return structuredClone(this.#filters);
  }

  /** Calls `listener` for each event of this type, or for what `name` says else. Returns its end. */
  on(name, listener) {
    if (typeof listener !== "function") throw new TypeError("the listener must be a function");
    if (!this.#listeners.has(name)) this.#listeners.set(name, new Set());
    const listeners = this.#listeners.get(name);
    // In a wrapper of its own: the same function may listen twice, and each ends for itself.
    const entry = { listener };
    listeners.add(entry);
    return () => void listeners.delete(entry);
  }

  /** Replaces all filters, now and for every connection to come. */
  subscribe(filters = {}) {
    this.#filters = normalFilters(filters);
    if (this.#connection?.welcomed) this.#sendFilters();
  }

  /** Asks `getToken` for a newer token and tells it to the server. False if there is no connection. */
  async renew() {
    const connection = this.#connection;
    const token = await this.#newToken();
    if (this.#state === "closed") return false;
    if (!token) {
      this.#end(TOKEN_EXPIRED, "getToken gave no token");
      return false;
    }
    // Another connection has begun with the new token, or is about to.
    if (this.#connection !== connection || !connection?.welcomed) return false;
    this.#send({ type: "authenticate", data: { token } });
    return true;
  }

  /** Ends the stream. */
  close() {
    if (this.#state === "closed") return;
    // Nobody will read what waits: another stream goes on before it.
    this.#cursor = this.cursor;
    this.#reader?.queue.splice(0);
    this.#end(NORMAL, "closed by its owner");
  }

  /**
   * The events from now on. At most `maxQueued` wait for the loop; past that the connection is
   * given up, and taken up again behind the last of them once they are read. Leaving the loop
   * closes the stream. If the server ends the stream, the loop throws.
   */
  [Symbol.asyncIterator]() {
    if (this.#reader) throw new Error("the stream is being read already");
    this.#reader = { queue: [], waiting: [], cursor: this.#cursor };
    return {
      next: () => this.#next(),
      return: async () => {
        this.close();
        return { done: true, value: undefined };
      },
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }

  #next() {
    const reader = this.#reader;
    const event = reader.queue.shift();
    if (event) {
      reader.cursor = event.id;
      if (reader.queue.length === 0 && this.#state === "paused") this.#connect();
      return Promise.resolve({ done: false, value: event });
    }
    if (this.#state === "closed") return this.#lastReading();
    return new Promise((resolve, reject) => reader.waiting.push({ resolve, reject }));
  }

  /** How a loop ends: quietly if its owner ended it, with an error if the server did. */
  async #lastReading() {
    if (this.#ended) throw this.#ended;
    return { done: true, value: undefined };
  }

  async #connect() {
    const connection = { welcomed: false, filters: this.#filters };
    this.#connection = connection;
    this.#become("connecting");
    let access;
    try {
      access = await this.#access();
    } catch (error) {
      if (this.#connection !== connection) return;
      this.#emit("error", error);
      this.#retry();
      return;
    }
    if (this.#connection !== connection) return;
    if (!access) {
      this.#end(TOKEN_EXPIRED, "getToken gave no token");
      return;
    }
    this.#open(connection, access);
  }

  #open(connection, { query, protocols }) {
    connection.filters = this.#filters;
    let socket;
    try {
      socket = new this.#WebSocket(this.#address(query), protocols);
    } catch (error) {
      // A token or an address that can never be sent: another attempt would end the same.
      this.#emit("error", error);
      this.#end(BAD_MESSAGE, String(error?.message ?? error));
      return;
    }
    connection.socket = socket;
    const present = () => this.#connection === connection;
    socket.onopen = () => (connection.admitted = true);
    socket.onmessage = ({ data }) => present() && this.#receive(connection, data);
    socket.onclose = ({ code, reason }) => present() && this.#lost(code, reason);
    // It stays when the connection is given up: `ws` throws errors that nobody listens to.
    socket.onerror = (event) => {
      if (present()) this.#emit("error", event.error ?? new Error(event.message || "the connection failed"));
    };
    this.#watch(WELCOME_PATIENCE_MS);
  }

  #address(query) {
    const url = new URL(this.#url);
    const set = (name, value) => value && url.searchParams.set(name, value);
    set("after", this.#cursor);
    set("types", this.#filters.types.join(","));
    set("device_id", this.#filters.deviceIds.join(","));
    set("group_id", this.#filters.groupIds.join(","));
    set("ticket", query?.ticket);
    return url.href;
  }

  /** What lets the next connection in; nothing if the user is signed out. */
  async #access() {
    if (this.#getTicket) {
      const given = await this.#getTicket();
      const ticket = typeof given === "string" ? given : given?.ticket;
      return ticket && { query: { ticket }, protocols: [] };
    }
    let token = this.#token;
    if (this.#getToken && (!token || this.#tokenInDoubt)) token = await this.#newToken();
    // Not in the address, which proxies and servers write into their logs.
    return token && { protocols: ["bearer", token] };
  }

  /** One request at a time: a refresh token that is used twice ends the whole session. */
  #newToken() {
    this.#refreshing ??= (async () => {
      try {
        if (!this.#getToken) throw new Error("without getToken the token cannot be renewed");
        const token = await this.#getToken(this.#token);
        if (token) {
          this.#token = token;
          this.#tokenInDoubt = false;
        }
        return token;
      } finally {
        this.#refreshing = undefined;
      }
    })();
    return this.#refreshing;
  }

  #receive(connection, text) {
    this.#watch(connection.patience ?? WELCOME_PATIENCE_MS);
    let frame;
    try {
      frame = JSON.parse(text);
    } catch (error) {
      this.#emit("error", error);
      return;
    }
    if (frame.id !== undefined) this.#pass(frame);
    else this.#obey(connection, frame);
  }

  #pass(event) {
    if (!isAfter(event.id, this.#cursor)) return;
    const reader = this.#reader;
    const waiting = reader?.waiting.shift();
    if (reader && !waiting && reader.queue.length >= this.#maxQueued) {
      // Before the cursor moves: the next connection gets this event again.
      this.#abandon();
      this.#become("paused");
      return;
    }
    this.#cursor = event.id;
    if (waiting) {
      reader.cursor = event.id;
      waiting.resolve({ done: false, value: event });
    } else {
      reader?.queue.push(event);
    }
    this.#emit(event.type, event);
    this.#emit("event", event);
  }

  #obey(connection, { type, data = {} }) {
    if (type === "welcome") {
      this.#welcome(connection, data);
    } else if (type === "heartbeat") {
      if (isAfter(data.cursor, this.#cursor)) this.#cursor = data.cursor;
    } else if (type === "resync") {
      // The old cursor leads nowhere. Whoever shows a state has to read it anew.
      this.#cursor = data.cursor;
    } else if (type === "subscribed") {
      const { types, device_ids: deviceIds, group_ids: groupIds } = data;
      this.#goodFilters = normalFilters({ types, deviceIds, groupIds });
    } else if (type === "token_expiring" && this.#getToken) {
      // If it fails, the server closes with 4401, and the next connection asks again.
      this.renew().catch((error) => this.#emit("error", error));
    } else if (type === "error") {
      this.#refused(data);
      return;
    }
    this.#emit(type, data);
  }

  #welcome(connection, { cursor, heartbeat_seconds: heartbeat = 25 }) {
    connection.welcomed = true;
    connection.patience = heartbeat * 1_000 * SILENT_HEARTBEATS;
    this.#watch(connection.patience);
    // With a cursor of ours this one is ahead of what is still to be replayed.
    this.#cursor ??= cursor;
    this.#goodFilters = connection.filters;
    this.#timer("good", GOOD_AFTER_MS, () => (this.#bound = FIRST_BOUND_MS));
    // They were changed while this connection was on its way.
    if (this.#filters !== connection.filters) this.#sendFilters();
    this.#become("open");
  }

  #refused({ code, detail }) {
    // Filters that the server refuses would keep the next connection from being made at all.
    if (code === "INVALID_FILTER") this.#filters = this.#goodFilters;
    this.#emit("error", new StreamMessageError(code, detail));
    // The token is a good one, but of a new session, which needs a connection of its own.
    if (code === "OTHER_SESSION" && this.#state === "open") this.#retry();
  }

  #lost(code, reason) {
    const expired = code === TOKEN_EXPIRED;
    if (code === BAD_MESSAGE || code === SESSION_ENDED) {
      this.#end(code, reason);
    } else if (expired && !this.#getToken && !this.#getTicket) {
      this.#end(code, reason);
    } else {
      // Browsers do not tell a refused upgrade (401) from a server that is away.
      if (expired || !this.#connection.admitted) this.#tokenInDoubt = true;
      this.#retry(code, reason);
    }
  }

  /** Connects again after a random time, so that a thousand clients do not come back at once. */
  #retry(code, reason) {
    this.#abandon();
    const delay = this.#random() * this.#bound;
    this.#bound = Math.min(this.#bound * 2, LAST_BOUND_MS);
    this.#timer("retry", delay, () => this.#connect());
    this.#become("waiting", { delay, code, reason });
  }

  /** Gives the connection up without waiting for its end, which may never come. */
  #abandon() {
    const socket = this.#connection?.socket;
    this.#connection = undefined;
    for (const name of Object.keys(this.#timers)) this.#stop(name);
    try {
      socket?.close(NORMAL);
    } catch {
      // It is closed.
    }
  }

  #end(code, reason) {
    if (this.#state === "closed") return;
    this.#abandon();
    if (code !== NORMAL) this.#ended = new StreamClosedError(code, reason);
    this.#become("closed", { code, reason });
    for (const { resolve, reject } of this.#reader?.waiting.splice(0) ?? []) {
      this.#lastReading().then(resolve, reject);
    }
    if (code === BAD_MESSAGE) this.#emit("error", this.#ended);
    this.#emit("closed", { code, reason, error: this.#ended });
  }

  #watch(ms) {
    this.#timer("watchdog", ms, () => {
      if (!this.#connection.admitted) this.#tokenInDoubt = true;
      this.#retry(undefined, "nothing was heard from the server");
    });
  }

  #timer(name, ms, callback) {
    this.#stop(name);
    this.#timers[name] = this.#setTimeout(callback, ms);
  }

  #stop(name) {
    if (this.#timers[name] !== undefined) this.#clearTimeout(this.#timers[name]);
    delete this.#timers[name];
  }

  #sendFilters() {
    const { types, deviceIds, groupIds } = this.#filters;
    this.#send({ type: "subscribe", data: { types, device_ids: deviceIds, group_ids: groupIds } });
  }

  #send(message) {
    try {
      this.#connection.socket.send(JSON.stringify(message));
    } catch (error) {
      // It is closing. The next connection begins with the filters and the token of then.
      this.#emit("error", error);
    }
  }

  #become(state, detail = {}) {
    this.#state = state;
    this.#emit("state", { state, ...detail });
  }

  /** A listener that fails is the listener's matter: neither the others nor the stream notice. */
  #emit(name, value) {
    const failed = (error) => {
      if (name === "error" || !this.#listeners.get("error")?.size) console.error(error);
      else this.#emit("error", error);
    };
    for (const { listener } of [...(this.#listeners.get(name) ?? [])]) {
      try {
        const result = listener(value);
        if (typeof result?.then === "function") result.then(undefined, failed);
      } catch (error) {
        failed(error);
      }
    }
  }
}

/** Whether `id` is behind `cursor`. Epochs have no order: another one is always news. */
function isAfter(id, cursor) {
  if (cursor === undefined) return true;
  const epoch = (text) => text.slice(0, text.lastIndexOf("-"));
  return epoch(id) !== epoch(cursor) || id > cursor;
}

function normalFilters({ types = [], deviceIds = [], groupIds = [] }) {
  return { types: [...types], deviceIds: [...deviceIds], groupIds: [...groupIds] };
}

/** The address of the stream: of a server's address as well as in full, http as well as ws. */
function socketUrl(given) {
  const url = new URL(given, globalThis.location?.href);
  url.protocol = url.protocol.replace(/^http/, "ws");
  if (url.pathname === "/") url.pathname = "/api/v1/ws";
  url.hash = "";
  return url.href;
}
