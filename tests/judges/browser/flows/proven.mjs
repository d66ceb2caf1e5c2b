// A proven rotation is begun in the dialog, watched in the live panel without loading the page again, and
// ends by itself when the receiver has deployed the new secret.
import assert from "node:assert/strict";
import { heading, run } from "../lib.mjs";
import { accepted, quick } from "../world.mjs";

await run(async (t) => {
  const receiver = await t.receiver();
  const app = await t.api("POST", "/v1/apps", { name: "Watched" });
  const endpoint = await t.api("POST", `/v1/apps/${app.clientId}/endpoints`, { url: receiver.url });
  receiver.held.push(endpoint.secret.value);
  await accepted(t, app.clientId, endpoint.id);

  const page = await t.signIn();
  await page.goto(`keyrings/${endpoint.keyringId}`);
  await page.getByRole("link", { name: "Rotate", exact: true }).click();
  await page.getByRole("radio", { name: "proven" }).check();
  await page.getByText("How much proof").click();
  for (const [label, value] of quick) await page.getByLabel(label).fill(value);
  await page.getByLabel("Why, for the audit log").fill("yearly");
  await page.getByRole("button", { name: "Rotate" }).click();
  await heading(page, "The new secret");
  const fresh = await page.locator("#secret-value").innerText();
  await page.getByRole("link", { name: "I kept it" }).click();
  await page.locator('[aria-current="step"]', { hasText: "staged" }).waitFor();
  await page.getByRole("button", { name: "Promote without proof" }).waitFor();

  await page.evaluate(() => (globalThis.loadedOnce = true));
  // Not there yet: probes are refused, and the panel says so by itself.
  await page.locator("#rotation-panel", { hasText: "not ready" }).waitFor();
  const why = page.getByRole("form", { name: "Promote without proof" }).getByLabel("Why");
  await why.fill("typed while it moves");
  receiver.held.splice(0, 1, fresh);
  await page.locator('[aria-current="step"]', { hasText: "completed" }).waitFor();
  await page.getByText("proved by 1 endpoint").waitFor();
  assert.ok(await page.evaluate(() => globalThis.loadedOnce), "the page was not loaded again");
  const undo = page.getByRole("button", { name: "Undo" });
  await undo.waitFor();
  await t.examine(page, "proven, completed");
});
