// The example page in a real browser, from the server that `mdm-api try` starts.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { chromium } from "playwright-core";

import { EMAIL, PASSWORD, TestServer, until } from "./server.js";

const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** A page in a browser with no past, and everything that it complains about. */
async function newPage(t) {
  const profile = await mkdtemp(join(tmpdir(), "mobius-mdm-browser-"));
  const executablePath = process.env.CHROMIUM_BIN ?? "/usr/bin/chromium";
  const browser = await chromium.launchPersistentContext(profile, { executablePath, args: FLAGS });
  t.after(async () => {
    await browser.close();
    await rm(profile, { recursive: true, force: true });
  });
  const complaints = [];
  const page = await browser.newPage();
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("requestfailed", (request) => complaints.push(`${request.url()}: ${request.failure()?.errorText}`));
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) complaints.push(message.text());
  });
  return { page, complaints };
}

test("the example page shows what is there, and then what changes", async (t) => {
  const server = await TestServer.start(t, "try");
  const session = await server.session();
  const address = await until("the page's address", () => /http:\S+\/examples\/live\.html/.exec(server.output)?.[0]);
  const device = await session.enroll("web-1");
  const group = await session.call("POST", "/device-groups", { name: "Front" });
  const { page, complaints } = await newPage(t);
  await page.goto(address);
  await page.getByLabel("E-mail").fill(EMAIL);
  await page.getByLabel("Password").fill(PASSWORD);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByText("connected: events come as they happen").waitFor();
  const row = (kind, id) => page.locator(`#${kind} tr[data-id="${id}"]`);
  await row("devices", device.id).getByText("web-1").waitFor();
  await row("groups", group.id).getByText("Front").waitFor();

  // From here on the page asks for nothing but what an event makes it ask for.
  const requests = [];
  page.on("request", (request) => requests.push(request.url()));
  await session.rename(device, "web-2");
  await row("devices", device.id).getByText("web-2").waitFor();
  assert.deepEqual(requests, [], "the row changed by the event alone");

  const policy = await session.call("POST", "/policies", { name: "Disk", platform: "linux", configuration: {} });
  await row("policies", policy.id).getByText("Disk").waitFor();
  await session.call("POST", `/policies/${policy.id}/devices`, { device_id: device.id });
  await row("policies", policy.id).getByText("assigned: web-2").waitFor();
  await session.call("POST", `/device-groups/${group.id}/devices`, { device_id: device.id });
  await row("groups", group.id).getByText("added: web-2").waitFor();
  assert.equal(await row("groups", group.id).locator("td").first().textContent(), "1");
  const command = await session.call("POST", `/devices/${device.id}/commands`, { command: "system_info" });
  await row("commands", command.id).getByText("web-2").waitFor();
  await session.call("POST", `/commands/${command.id}/cancel`);
  await row("commands", command.id).locator("td").nth(1).getByText("cancelled").waitFor();

  const shots = process.env.MDM_SCREENSHOTS;
  if (shots) {
    await page.screenshot({ path: join(shots, "live-light.png"), fullPage: true });
    await page.emulateMedia({ colorScheme: "dark" });
    await page.screenshot({ path: join(shots, "live-dark.png"), fullPage: true });
  }

  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByLabel("Password").waitFor();
  assert.equal(await page.locator("#board").isVisible(), false);
  assert.deepEqual(complaints, []);
});
