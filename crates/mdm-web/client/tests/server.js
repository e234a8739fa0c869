// A real server of the test's own: $MDM_API_BIN on a free port, with a directory that goes with it.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { WebSocket as WsSocket } from "ws";

export const EMAIL = "admin@mobius.local";
export const PASSWORD = "correct horse battery";

/** The platform's own where there is one: from Node 22 on. */
export const WebSocket = globalThis.WebSocket ?? WsSocket;

/** Waits until `condition` gives something, and gives it. */
export async function until(what, condition, patience = 30_000) {
  const deadline = Date.now() + patience;
  for (;;) {
    const found = await condition();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`in vain waited for: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

export class TestServer {
  #directory;
  #command;
  #child;
  #output = "";

  /** Starts it; `command` is `serve` or `try`. It ends with the test `t`. */
  static async start(t, command = "serve") {
    const server = new TestServer();
    server.#command = command;
    server.#directory = await mkdtemp(join(tmpdir(), "mobius-mdm-web-"));
    // As root, the server runs its PostgreSQL as another user, who has to get through here.
    await chmod(server.#directory, 0o711);
    t.after(async () => {
      // A killed server left its PostgreSQL running, which only a server stops.
      if (server.#child.signalCode === "SIGKILL") await server.run().catch(console.error);
      await server.stop("SIGTERM");
      await rm(server.#directory, { recursive: true, force: true });
    });
    await server.run("127.0.0.1:0");
    return server;
  }

  async run(listen = new URL(this.url).host) {
    const binary = process.env.MDM_API_BIN;
    if (!binary) throw new Error("MDM_API_BIN must name the server's binary");
    const data = join(this.#directory, "data");
    this.#child = spawn(binary, [this.#command, "--data-dir", data, "--listen", listen], {
      cwd: this.#directory,
      env: { PATH: process.env.PATH, MDM_ADMIN_PASSWORD: PASSWORD },
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#output = "";
    for (const pipe of [this.#child.stdout, this.#child.stderr]) {
      pipe.on("data", (text) => (this.#output += text));
    }
    this.url = await until(
      "the server",
      () => {
        if (this.#child.exitCode !== null) throw new Error(`the server ended:\n${this.#output}`);
        return /^listening on (\S+)$/m.exec(this.#output)?.[1];
      },
      120_000,
    );
  }

  /** What the server has printed. */
  get output() {
    return this.#output;
  }

  async stop(signal) {
    const child = this.#child;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, "exit");
    child.kill(signal);
    await ended;
  }

  /** An answer's JSON; any other status than 2xx is an error. */
  async call(method, path, body, token) {
    const headers = {};
    if (body) headers["content-type"] = "application/json";
    if (token) headers.authorization = `Bearer ${token}`;
    const url = `${this.url}/api/v1${path}`;
    const response = await fetch(url, { method, headers, body: body && JSON.stringify(body) });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return text ? JSON.parse(text) : undefined;
  }

  /** Signs in. */
  async session() {
    const { token, refresh_token } = await this.call("POST", "/auth/login", { email: EMAIL, password: PASSWORD });
    return new Session(this, token, refresh_token);
  }
}

/** What a signed-in administrator does. */
export class Session {
  #refreshToken;

  constructor(server, token, refreshToken) {
    this.server = server;
    this.token = token;
    this.#refreshToken = refreshToken;
  }

  call(method, path, body) {
    return this.server.call(method, path, body, this.token);
  }

  /** A `getToken` for the stream. */
  refresh = async () => {
    const body = { refresh_token: this.#refreshToken };
    const { token, refresh_token } = await this.server.call("POST", "/auth/refresh", body);
    this.token = token;
    this.#refreshToken = refresh_token;
    return token;
  };

  enroll(uuid) {
    return this.call("POST", "/devices", { uuid, hostname: uuid, platform: "linux" });
  }

  rename(device, hostname) {
    return this.call("PUT", `/devices/${device.id}`, { hostname });
  }

  /** The log from behind `after` to its end. */
  async log(after) {
    const events = [];
    for (;;) {
      const page = await this.call("GET", `/events?limit=500${after ? `&after=${after}` : ""}`);
      if (page.events.length === 0) return events;
      events.push(...page.events);
      after = page.next_cursor;
    }
  }
}
