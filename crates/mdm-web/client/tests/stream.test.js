// The stream's behaviour in time and in trouble, against a server that the tests play.

import assert from "node:assert/strict";
import { test } from "node:test";

import { EventStream, StreamClosedError } from "../mobius-mdm.js";
import { fakeStream, id, settle } from "./fakes.js";

const versions = (events) => events.map((event) => event.data.version);

test("the token travels as a subprotocol and never in the address", async () => {
  const { last } = await fakeStream({ token: "secret.token" });
  assert.equal(last().url.href, "ws://mdm.test/api/v1/ws");
  assert.deepEqual(last().protocols, ["bearer", "secret.token"]);
});

test("an address may be a server's or the stream's own, and https becomes wss", async () => {
  for (const [given, expected] of [
    ["https://mdm.test", "wss://mdm.test/api/v1/ws"],
    ["https://mdm.test/prefix/api/v1/ws", "wss://mdm.test/prefix/api/v1/ws"],
    ["ws://mdm.test:8081/ws", "ws://mdm.test:8081/ws"],
  ]) {
    const { last } = await fakeStream({ url: given });
    assert.equal(last().url.href, expected);
  }
});

test("a ticket opens one connection, and the next one gets another", async () => {
  let tickets = 0;
  const getTicket = async () => ({ ticket: `ticket-${(tickets += 1)}`, expires_at: "" });
  const { last, clock, sockets } = await fakeStream({ getTicket });
  assert.equal(last().query("ticket"), "ticket-1");
  assert.deepEqual(last().protocols, []);
  last().welcome();
  last().end(4401);
  await clock.advanceToNext();
  assert.equal(sockets.length, 2);
  assert.equal(last().query("ticket"), "ticket-2");
});

test("what cannot work is refused at once", () => {
  class Never {}
  assert.throws(() => new EventStream({ url: "http://mdm.test", WebSocket: Never }), /token, getToken and getTicket/);
  assert.throws(() => new EventStream({ url: "nonsense", token: "t", WebSocket: Never }), /Invalid URL/);
});

test("events reach the listeners of their type and those of all, until these end", async () => {
  const { stream, last, of } = await fakeStream();
  const typed = [];
  const end = stream.on("device_updated", (event) => typed.push(event.data.version));
  stream.on("policy_changed", () => assert.fail("another type"));
  last().welcome();
  last().event(1);
  end();
  last().event(2);
  assert.deepEqual(typed, [1]);
  assert.deepEqual(versions(of("event")), [1, 2]);
});

test("the cursor follows the welcome, events, heartbeats and resyncs, and the next connection begins there", async () => {
  const { stream, last, clock, of } = await fakeStream();
  last().welcome({ cursor: id(5) });
  assert.equal(stream.cursor, id(5));
  last().event(7);
  assert.equal(stream.cursor, id(7));
  last().frame("heartbeat", { cursor: id(30) });
  assert.equal(stream.cursor, id(30));
  last().frame("heartbeat", { cursor: id(29) });
  assert.equal(stream.cursor, id(30), "it never goes back");
  last().end(1006);
  await clock.advance(1_000);
  assert.equal(last().query("after"), id(30));
  // Ahead of the events that are still to be replayed.
  last().welcome({ cursor: id(90) });
  assert.equal(stream.cursor, id(30));
  last().frame("resync", { reason: "other_epoch", cursor: id(3, "e2") });
  assert.equal(stream.cursor, id(3, "e2"));
  assert.deepEqual(of("resync"), [{ reason: "other_epoch", cursor: id(3, "e2") }]);
  last().event(4, "e2");
  assert.deepEqual(versions(of("event")), [7, 4]);
});

test("an event comes once, and one of another epoch is another event", async () => {
  const { last, of } = await fakeStream({ after: id(3) });
  assert.equal(last().query("after"), id(3));
  last().welcome();
  for (const number of [2, 3, 4, 4, 3, 5]) last().event(number);
  // Smaller as a text: epochs have no order.
  last().event(1, "d9");
  assert.deepEqual(versions(of("event")), [4, 5, 1]);
});

test("reconnections wait a random part of a bound that doubles from 1 s to 60 s", async () => {
  let part = 0;
  const { last, clock, sockets } = await fakeStream({ random: () => part });
  for (const bound of [1e3, 2e3, 4e3, 8e3, 16e3, 32e3, 60e3, 60e3, 60e3]) {
    const before = sockets.length;
    part = (before % 3) / 2.5;
    last().end(1006);
    assert.equal(await clock.advanceToNext(), part * bound);
    assert.equal(sockets.length, before + 1);
  }
});

test("only a connection that lasted sets the bound back", async () => {
  const { last, clock } = await fakeStream();
  for (const delay of [500, 1_000, 2_000]) {
    last().welcome();
    last().end(1001);
    assert.equal(await clock.advanceToNext(), delay);
  }
  last().welcome();
  await clock.advance(10_000);
  last().end(1001);
  assert.equal(await clock.advanceToNext(), 500);
});

test("without a frame for 2.5 heartbeats the connection is given up and another one made", async () => {
  const { last, clock, sockets, of } = await fakeStream();
  last().welcome({ heartbeat_seconds: 20 });
  await clock.advance(49_000);
  last().frame("heartbeat", { cursor: id(1) });
  await clock.advance(49_000);
  assert.equal(sockets.length, 1);
  await clock.advance(1_500);
  const dead = sockets[0];
  assert.equal(dead.closedWith, 1000);
  assert.equal(sockets.length, 2);
  last().welcome();
  last().event(2);
  // What the dead one still says, and its late end, are nobody's matter.
  dead.event(3);
  dead.end(4403);
  assert.deepEqual(versions(of("event")), [2]);
  assert.deepEqual(of("closed"), []);
});

test("a server that never says welcome is given up, too", async () => {
  const { clock, sockets } = await fakeStream();
  await clock.advance(31_000);
  assert.equal(sockets.length, 2);
});

test("each close code leads where the documentation says", async () => {
  for (const code of [1000, 1001, 1006, 1011, 4408, 4409, 4429]) {
    const { last, clock, sockets, of } = await fakeStream();
    last().welcome();
    last().end(code);
    await clock.advance(1_000);
    assert.equal(sockets.length, 2, `${code}`);
    assert.deepEqual(of("closed"), [], `${code}`);
  }
  for (const code of [4400, 4401, 4403]) {
    const { stream, last, clock, sockets, of } = await fakeStream();
    last().welcome();
    last().end(code, "why");
    await clock.advance(120_000);
    assert.equal(sockets.length, 1, `${code}`);
    assert.equal(stream.state, "closed");
    const [{ code: told, reason, error }] = of("closed");
    assert.deepEqual([told, reason], [code, "why"]);
    assert.ok(error instanceof StreamClosedError);
    assert.equal(of("error").length, code === 4400 ? 1 : 0, "only 4400 is a mistake of the client");
    assert.equal(clock.pending, 0, "no timer keeps a program alive");
  }
});

test("4401 asks for another token, and connects with it", async () => {
  const asked = [];
  const getToken = async (inUse) => {
    asked.push(inUse);
    return `t${asked.length}`;
  };
  const { last, clock } = await fakeStream({ getToken });
  last().welcome();
  last().end(4401);
  await clock.advance(1_000);
  assert.deepEqual(asked, [undefined, "t1"]);
  assert.deepEqual(last().protocols, ["bearer", "t2"]);
  // A good token is used again.
  last().welcome();
  last().end(1001);
  await clock.advance(2_000);
  assert.deepEqual(last().protocols, ["bearer", "t2"]);
});

test("after a refused upgrade, which browsers do not tell from an absent server, the token is renewed", async () => {
  let tokens = 0;
  const getToken = () => `t${(tokens += 1)}`;
  const { last, clock } = await fakeStream({ token: "t0", getToken });
  assert.deepEqual(last().protocols, ["bearer", "t0"]);
  last().end(1006);
  await clock.advance(1_000);
  assert.deepEqual(last().protocols, ["bearer", "t1"]);
  // Let in, and then refused for another reason: the token is good.
  last().onopen({});
  last().end(4429);
  await clock.advance(2_000);
  assert.deepEqual(last().protocols, ["bearer", "t1"]);
});

test("a getToken that fails is asked again later, and one that gives nothing ends the stream", async () => {
  const answers = [() => Promise.reject(new Error("offline")), () => "t1", () => undefined];
  const { stream, last, clock, sockets, of } = await fakeStream({ getToken: () => answers.shift()() });
  assert.equal(sockets.length, 0);
  assert.match(of("error")[0].message, /offline/);
  await clock.advance(1_000);
  assert.equal(sockets.length, 1);
  last().welcome();
  last().end(4401);
  await clock.advance(2_000);
  assert.equal(stream.state, "closed");
  assert.equal(of("closed")[0].code, 4401);
});

test("token_expiring renews in place, with one request however often it is asked for", async () => {
  let asked = 0;
  let answer;
  const getToken = () => {
    asked += 1;
    return new Promise((resolve) => (answer = resolve));
  };
  const { stream, last } = await fakeStream({ token: "t0", getToken });
  last().welcome();
  last().frame("token_expiring", { token_expires_at: "" });
  const renewed = stream.renew();
  await settle();
  assert.equal(asked, 1, "a refresh token that is used twice ends the session");
  answer("t1");
  assert.equal(await renewed, true);
  const expected = { type: "authenticate", data: { token: "t1" } };
  assert.deepEqual(last().sent, [expected, expected]);
});

test("a token of another session gets a connection of its own", async () => {
  const { last, clock, sockets } = await fakeStream({ token: "t0", getToken: () => "t1" });
  last().welcome();
  last().frame("token_expiring", { token_expires_at: "" });
  await settle();
  last().frame("error", { code: "OTHER_SESSION", detail: "" });
  await clock.advance(1_000);
  assert.equal(sockets.length, 2);
  assert.deepEqual(last().protocols, ["bearer", "t1"]);
});

test("filters are sent at once, and go into the address of the next connection", async () => {
  const { stream, last, clock } = await fakeStream({ types: ["device_updated"] });
  assert.equal(last().query("types"), "device_updated");
  // On its way: nothing can be sent yet.
  stream.subscribe({ types: ["policy_changed"], deviceIds: ["d1", "d2"] });
  assert.deepEqual(last().sent, []);
  last().welcome();
  const data = { types: ["policy_changed"], device_ids: ["d1", "d2"], group_ids: [] };
  assert.deepEqual(last().sent, [{ type: "subscribe", data }]);
  last().frame("subscribed", data);
  last().end(1006);
  await clock.advance(1_000);
  assert.equal(last().query("types"), "policy_changed");
  assert.equal(last().query("device_id"), "d1,d2");
  assert.equal(last().query("group_id"), null);
  last().welcome();
  assert.deepEqual(last().sent, [], "the address has said it");
});

test("filters that the server refuses do not spoil the next connection", async () => {
  const { stream, last, clock, of } = await fakeStream({ types: ["device_updated"] });
  last().welcome();
  stream.subscribe({ types: ["nonsense"] });
  last().frame("error", { code: "INVALID_FILTER", detail: "no such type" });
  assert.equal(of("error")[0].code, "INVALID_FILTER");
  assert.deepEqual(stream.filters.types, ["device_updated"]);
  last().end(1006);
  await clock.advance(1_000);
  assert.equal(last().query("types"), "device_updated");
});

test("a listener that throws or rejects harms neither the others nor the stream", async () => {
  const { stream, last, of } = await fakeStream();
  const seen = [];
  stream.on("device_updated", () => {
    throw new Error("thrown");
  });
  stream.on("device_updated", async () => {
    throw new Error("rejected");
  });
  stream.on("device_updated", (event) => seen.push(event.data.version));
  last().welcome();
  last().event(1);
  last().event(2);
  await settle();
  assert.deepEqual(seen, [1, 2]);
  assert.deepEqual(versions(of("event")), [1, 2]);
  assert.deepEqual(of("error").map((error) => error.message).sort(), ["rejected", "rejected", "thrown", "thrown"]);
});

test("what is no JSON is told, and the stream goes on", async () => {
  const { last, of } = await fakeStream();
  last().welcome();
  last().onmessage({ data: "{" });
  last().event(1);
  assert.equal(of("error").length, 1);
  assert.deepEqual(versions(of("event")), [1]);
});

test("a slow loop pauses the stream, which goes on behind the last event that waited", async () => {
  const { stream, last, sockets } = await fakeStream({ maxQueued: 3 });
  const loop = stream[Symbol.asyncIterator]();
  last().welcome();
  for (let number = 1; number <= 5; number += 1) last().event(number);
  assert.equal(stream.state, "paused");
  assert.equal(last().closedWith, 1000);
  assert.equal(stream.cursor, undefined, "nothing was taken yet");
  const taken = [];
  for (const expected of [1, 2, 3]) {
    assert.equal(sockets.length, 1);
    taken.push((await loop.next()).value.data.version);
    assert.equal(stream.cursor, id(expected));
  }
  await settle();
  assert.equal(sockets.length, 2);
  assert.equal(last().query("after"), id(3));
  const pending = loop.next();
  last().welcome();
  last().event(4);
  last().event(5);
  taken.push((await pending).value.data.version, (await loop.next()).value.data.version);
  assert.deepEqual(taken, [1, 2, 3, 4, 5]);
});

test("leaving the loop closes the stream, and its cursor is that of the last event taken", async () => {
  const { stream, last, of } = await fakeStream();
  const loop = (async () => {
    for await (const event of stream) if (event.data.version === 2) break;
  })();
  await settle();
  last().welcome();
  for (let number = 1; number <= 4; number += 1) last().event(number);
  await loop;
  assert.equal(stream.state, "closed");
  assert.equal(stream.cursor, id(2));
  assert.equal(of("closed")[0].error, undefined);
});

test("a loop ends quietly when its owner closes, and throws when the server ends the stream", async () => {
  const closed = await fakeStream();
  const quiet = closed.stream[Symbol.asyncIterator]();
  const pending = quiet.next();
  closed.last().welcome();
  closed.stream.close();
  assert.deepEqual(await pending, { done: true, value: undefined });
  assert.equal(closed.last().closedWith, 1000);
  assert.equal(closed.clock.pending, 0);

  const ended = await fakeStream();
  const loop = ended.stream[Symbol.asyncIterator]();
  ended.last().welcome();
  ended.last().event(1);
  ended.last().end(4403, "the session has ended");
  assert.equal((await loop.next()).value.data.version, 1, "what came before is still given");
  await assert.rejects(loop.next(), { code: 4403 });
});

test("a stream that is closed before it began makes no connection", async () => {
  const { stream, sockets } = await fakeStream({ getToken: () => new Promise(() => {}) });
  stream.close();
  await settle();
  assert.equal(sockets.length, 0);
  assert.equal(stream.state, "closed");
});
