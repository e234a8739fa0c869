// The stream against the real server.

import assert from "node:assert/strict";
import { test } from "node:test";

import { EventStream } from "../mobius-mdm.js";
import { TestServer, WebSocket, until } from "./server.js";

const ids = (events) => events.map(({ id }) => id);

/** A stream that is open, with what it has brought so far, and its sockets. */
async function follow(t, session, options = {}) {
  const sockets = [];
  class Observed extends WebSocket {
    constructor(...parts) {
      super(...parts);
      sockets.push(this);
    }
  }
  const { server, token } = session;
  const stream = new EventStream({ url: server.url, token, WebSocket: Observed, ...options });
  t.after(() => stream.close());
  const events = [];
  const welcomes = [];
  const resyncs = [];
  stream.on("event", (event) => events.push(event));
  stream.on("welcome", (welcome) => welcomes.push(welcome));
  stream.on("resync", (resync) => resyncs.push(resync));
  // A broken connection is what these tests are about.
  stream.on("error", () => {});
  await until("the welcome", () => welcomes.length === 1);
  return { stream, events, welcomes, resyncs, sockets };
}

test("the event of a change arrives with its type and its data", async (t) => {
  const session = await (await TestServer.start(t)).session();
  const { stream } = await follow(t, session);
  const renamed = [];
  stream.on("device_updated", (event) => renamed.push(event));
  const device = await session.enroll("first");
  await session.rename(device, "web-1");
  const [event] = await until("the event", () => renamed.length === 1 && renamed);
  assert.equal(event.type, "device_updated");
  assert.equal(event.data.device_id, device.id);
  assert.equal(event.data.hostname, "web-1");
  assert.equal(typeof event.data.version, "number");
  assert.ok(Date.parse(event.timestamp) > 0);
  assert.equal(stream.cursor, event.id);
});

test("over a server that is killed and started again each event comes once and in order", async (t) => {
  const server = await TestServer.start(t);
  const session = await server.session();
  const device = await session.enroll("first");
  const { events, resyncs, welcomes } = await follow(t, session);
  const before = welcomes[0].cursor;
  // Changes without a pause, into which the kill falls.
  const accepted = [];
  let writing = true;
  const writer = (async () => {
    for (let number = 1; writing; number += 1) {
      try {
        await session.rename(device, `web-${number}`);
        accepted.push(`web-${number}`);
      } catch {
        // The server is away. Whether that change was committed, the log tells.
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
  })();
  for (let kill = 1; kill <= 2; kill += 1) {
    const seen = events.length;
    await until("events", () => events.length >= seen + 20);
    await server.stop("SIGKILL");
    await server.run();
    await until("the stream again", () => welcomes.length >= kill + 1, 60_000);
  }
  const seen = events.length;
  await until("events after the kills", () => events.length >= seen + 20);
  writing = false;
  await writer;
  // An answered change is committed, and gets its place in the log a moment later.
  const log = await until("the last change in the log", async () => {
    const log = await session.log(before);
    return log.some(({ data }) => data.hostname === accepted.at(-1)) && log;
  });
  await until("the log's end", () => events.length >= log.length);
  assert.deepEqual(ids(events), ids(log));
  const renamed = new Set(events.map(({ data }) => data.hostname));
  assert.deepEqual(accepted.filter((hostname) => !renamed.has(hostname)), [], "what was answered is in the log");
  assert.deepEqual(resyncs, []);
});

test("a token is renewed in place, and the connection stays the same", async (t) => {
  const session = await (await TestServer.start(t)).session();
  const { stream, events, sockets, welcomes } = await follow(t, session, { getToken: session.refresh });
  const ends = [];
  stream.on("authenticated", ({ token_expires_at }) => ends.push(token_expires_at));
  assert.equal(await stream.renew(), true);
  await until("the answer", () => ends.length === 1);
  assert.ok(Date.parse(ends[0]) >= Date.parse(welcomes[0].token_expires_at));
  await session.enroll("first");
  await until("the event", () => events.length > 0);
  assert.equal(sockets.length, 1);
});

test("filters hold from the answer on, and over a break", async (t) => {
  const session = await (await TestServer.start(t)).session();
  const { stream, events, sockets, welcomes } = await follow(t, session);
  const device = await session.enroll("first");
  await until("what nothing filters yet", () => events.splice(0).length === 1);
  let subscribed = 0;
  stream.on("subscribed", () => (subscribed += 1));
  stream.subscribe({ types: ["policy_changed"] });
  await until("the answer", () => subscribed === 1);
  const policy = (name) => session.call("POST", "/policies", { name, platform: "linux", configuration: {} });
  await session.rename(device, "unseen-1");
  await policy("one");
  await until("the policy", () => events.length === 1);
  sockets[0].close();
  await session.rename(device, "unseen-2");
  await policy("two");
  await until("the policy after the break", () => events.length === 2);
  assert.equal(welcomes.length, 2);
  assert.equal(welcomes[1].recovered, true);
  assert.deepEqual(
    events.map(({ type, data }) => [type, data.name]),
    [["policy_changed", "one"], ["policy_changed", "two"]],
  );
  assert.equal(subscribed, 1, "the address said it the second time");
});

test("a logout ends the stream", async (t) => {
  const session = await (await TestServer.start(t)).session();
  const { stream, sockets } = await follow(t, session, { getToken: session.refresh });
  const closed = [];
  stream.on("closed", (how) => closed.push(how));
  const loop = (async () => {
    for await (const event of stream) assert.fail(`an event: ${event.type}`);
  })();
  const failed = assert.rejects(loop, { name: "StreamClosedError", code: 4403 });
  await session.call("POST", "/auth/logout");
  await failed;
  assert.equal(closed.length, 1);
  assert.equal(closed[0].code, 4403);
  assert.equal(stream.state, "closed");
  assert.equal(sockets.length, 1);
});

test("a listener that throws changes nothing for the others", async (t) => {
  const session = await (await TestServer.start(t)).session();
  const { stream, events } = await follow(t, session);
  stream.on("device_status_change", () => {
    throw new Error("of the listener");
  });
  await session.enroll("first");
  await session.enroll("second");
  await until("both", () => events.filter(({ type }) => type === "device_status_change").length === 2);
  assert.equal(stream.state, "open");
});

test("a loop that is slower than the events loses none", async (t) => {
  const session = await (await TestServer.start(t)).session();
  const device = await session.enroll("first");
  const { stream, sockets } = await follow(t, session, { maxQueued: 7 });
  const before = stream.cursor;
  const loop = stream[Symbol.asyncIterator]();
  for (let number = 1; number <= 30; number += 1) await session.rename(device, `web-${number}`);
  await until("the pause", () => stream.state === "paused");
  assert.equal(stream.cursor, before);
  const log = await until("the last change in the log", async () => {
    const log = await session.log(before);
    return log.some(({ data }) => data.hostname === "web-30") && log;
  });
  const taken = [];
  while (taken.length < log.length) taken.push((await loop.next()).value);
  assert.deepEqual(ids(taken), ids(log));
  assert.ok(sockets.length > 2, "it paused more than once");
});

test("each connection gets a ticket of its own, and one that was used lets nobody in", async (t) => {
  const server = await TestServer.start(t);
  const session = await server.session();
  const tickets = [];
  const getTicket = async () => {
    const issued = await session.call("POST", "/auth/ws-ticket");
    tickets.push(issued.ticket);
    return issued;
  };
  const { stream, events, welcomes } = await follow(t, session, { token: undefined, getTicket });
  const device = await session.enroll("first");
  await until("the enrolment", () => events.length === 1);
  await server.stop("SIGKILL");
  await server.run();
  await until("the stream again", () => welcomes.length === 2, 60_000);
  await session.rename(device, "web-1");
  await until("the change", () => events.length === 2);
  assert.equal(new Set(tickets).size, tickets.length);
  const again = await fetch(`${server.url}/api/v1/events/stream?ticket=${tickets[0]}`);
  assert.equal(again.status, 401);
  assert.equal((await again.json()).code, "TICKET_INVALID");
  stream.close();
});
