// A server and a clock that do only what a test tells them.

import { EventStream } from "../mobius-mdm.js";

/** Time that stands still until a test moves it. */
export class FakeClock {
  #now = 0;
  #next = 1;
  #timers = new Map();

  setTimeout = (callback, ms) => {
    this.#timers.set(this.#next, { callback, at: this.#now + ms });
    return this.#next++;
  };

  clearTimeout = (timer) => void this.#timers.delete(timer);

  get pending() {
    return this.#timers.size;
  }

  /** Moves to the next timer, and says how long that took. */
  async advanceToNext() {
    const wait = Math.min(...[...this.#timers.values()].map(({ at }) => at)) - this.#now;
    await this.advance(wait);
    return wait;
  }

  async advance(ms) {
    const until = this.#now + ms;
    for (;;) {
      const due = [...this.#timers].filter(([, { at }]) => at <= until).sort(([, a], [, b]) => a.at - b.at)[0];
      if (!due) break;
      const [timer, { callback, at }] = due;
      this.#timers.delete(timer);
      this.#now = at;
      callback();
      await settle();
    }
    this.#now = until;
  }
}

/** Lets everything run that waits for nothing but its turn. */
export async function settle() {
  for (let turn = 0; turn < 20; turn += 1) await Promise.resolve();
}

/** A stream whose sockets and timers belong to the test. */
export async function fakeStream(options = {}) {
  const clock = new FakeClock();
  const sockets = [];
  class FakeSocket {
    sent = [];
    closedWith = undefined;

    constructor(url, protocols) {
      this.url = new URL(url);
      this.protocols = protocols;
      sockets.push(this);
    }

    send(text) {
      this.sent.push(JSON.parse(text));
    }

    // As with a half-open connection: the end never comes.
    close(code) {
      this.closedWith = code;
    }

    frame(type, data, id) {
      this.onmessage({ data: JSON.stringify({ id, type, timestamp: "2026-01-22T13:50:00.000Z", data }) });
    }

    event(number, epoch = "e1") {
      this.frame("device_updated", { version: number }, id(number, epoch));
    }

    welcome(data = {}) {
      this.onopen({});
      this.frame("welcome", { cursor: id(0), recovered: true, replayed: 0, heartbeat_seconds: 20, ...data });
    }

    end(code, reason = "") {
      this.onclose({ code, reason });
    }

    query(name) {
      return this.url.searchParams.get(name);
    }
  }
  const access = options.token || options.getToken || options.getTicket ? {} : { token: "t0" };
  const stream = new EventStream({
    url: "http://mdm.test",
    WebSocket: FakeSocket,
    setTimeout: clock.setTimeout,
    clearTimeout: clock.clearTimeout,
    random: () => 0.5,
    ...access,
    ...options,
  });
  const heard = [];
  for (const name of ["event", "state", "resync", "error", "closed"]) {
    stream.on(name, (value) => heard.push([name, value]));
  }
  const of = (name) => heard.filter(([heardName]) => heardName === name).map(([, value]) => value);
  await settle();
  return { stream, clock, sockets, of, last: () => sockets.at(-1) };
}

/** The id of the event with this number. */
export function id(number, epoch = "e1") {
  return `${epoch}-${String(number).padStart(16, "0")}`;
}
