// The server goes while a rotation is watched, and comes back: the page says so both times, and moves on.
// Then the session ends under the open page, which leads to sign-in.
import assert from "node:assert/strict";
import { run } from "../lib.mjs";
import { accepted, policy } from "../world.mjs";

await run(async (t) => {
  const receiver = await t.receiver();
  const app = await t.api("POST", "/v1/apps", { name: "Gone" });
  const endpoint = await t.api("POST", `/v1/apps/${app.clientId}/endpoints`, { url: receiver.url });
  receiver.held.push(endpoint.secret.value);
  await accepted(t, app.clientId, endpoint.id);
  const opened = await t.api("POST", `/v1/keyrings/${endpoint.keyringId}/rotations`, { mode: "proven", policy });
  const made = await t.api("POST", "/v1/api-keys", { name: "watcher", scopes: ["read"], environment: "test" });

  const page = await t.signIn({}, made.key);
  page.expected.add("gone");
  await page.goto(`rotations/${opened.id}`);
  const list = await t.signIn();
  list.expected.add("gone");
  await list.goto("deliveries");
  await t.ask("stop");
  const status = page.locator("#status");
  await status.getByText("The server does not answer").waitFor();
  assert.ok(await status.isVisible());
  await t.examine(page, "server gone");
  await t.ask("start");
  await status.getByText("The server answers again").waitFor();
  receiver.held.splice(0, 1, opened.secret.value);
  await page.locator('[aria-current="step"]', { hasText: "completed" }).waitFor();
  // The list's stream comes back by itself, too.
  await t.api("POST", `/v1/apps/${app.clientId}/messages`, { eventType: "back.again", payload: {} });
  await list.locator("[data-live].fresh").waitFor();

  const next = await t.api("POST", `/v1/keyrings/${endpoint.keyringId}/rotations`, { mode: "staged" });
  const watched = await t.api("GET", `/v1/rotations/${next.id}`);
  assert.equal(watched.open, true);
  page.expected.add(401);
  await page.goto(`rotations/${next.id}`);
  await t.api("DELETE", `/v1/api-keys/${made.id}`);
  // A staged rotation waits for a person, yet its panel looks whether one came.
  if ((await page.locator("#rotation-panel[hx-get]").count()) === 0) await page.reload();
  await page.getByLabel("API key").waitFor();
});
