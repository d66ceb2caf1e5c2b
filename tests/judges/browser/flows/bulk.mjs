// A bulk rotation is planned, which rotates nothing; started; watched wave after wave without loading the page
// again; paused, resumed, and at its end. A receiver that may not be rotated is told in the plan.
import assert from "node:assert/strict";
import { heading, run } from "../lib.mjs";

await run(async (t) => {
  const app = await t.api("POST", "/v1/apps", { name: "Many", labels: { tier: "gold" } });
  const keyrings = [];
  for (let number = 0; number < 6; number += 1) {
    const made = await t.api("POST", `/v1/apps/${app.clientId}/endpoints`, { url: `http://127.0.0.1:9/${number}`, description: `number ${number}` });
    keyrings.push(made.keyringId);
  }
  await t.api("POST", `/v1/keyrings/${keyrings[5]}/rotations`, { mode: "staged" });
  const opened = async () => (await t.api("GET", "/v1/rotations?limit=100")).data.length;

  const page = await t.signIn();
  page.expected.add(422);
  await page.getByRole("link", { name: "Rotations" }).click();
  await page.getByRole("link", { name: "In bulk" }).click();
  await heading(page, "Bulk rotations");
  await page.getByText("No bulk rotation yet").waitFor();
  await page.getByRole("link", { name: "Plan a bulk rotation" }).click();
  await heading(page, "New bulk rotation");
  await page.getByLabel("Of apps with all these labels").fill("tier: gold");
  await page.getByLabel("How each moves").selectOption("overlap");
  await page.getByLabel("Overlap", { exact: true }).fill("1 h");
  await page.getByLabel("Waves", { exact: true }).fill("50 100");
  await page.getByLabel("Pause between two waves").fill("soon");
  await page.getByLabel("Stop when more of a wave failed").fill("100");
  await page.getByLabel("Why, for the audit log").fill("yearly");
  await page.getByRole("button", { name: "Plan it, rotate nothing" }).click();
  await page.locator("#f-pause[aria-invalid=true]").waitFor();
  assert.equal(await page.getByLabel("Of apps with all these labels").inputValue(), "tier: gold");
  await page.getByLabel("Pause between two waves").fill("0 s");
  await page.getByRole("button", { name: "Plan it, rotate nothing" }).click();
  await page.getByRole("heading", { name: "Plan: 6 keyrings, overlap" }).waitFor();
  await page.getByText("2 waves of 3, 3").waitFor();
  await page.getByRole("heading", { name: "In the way" }).waitFor();
  assert.equal(await opened(), 1, "a plan rotates nothing");

  await page.getByRole("button", { name: "Start: rotate 6 keyrings" }).click();
  await heading(page, "Bulk rotation, overlap");
  await page.evaluate(() => (globalThis.loadedOnce = true));
  const panel = page.locator("#bulk-panel");
  const state = (word) => panel.getByRole("status").locator(".state", { hasText: word });
  await state("completed").waitFor();
  await panel.getByText("6 of 6 keyrings, wave 2 of 2").waitFor();
  assert.ok(await page.evaluate(() => globalThis.loadedOnce), "the page was not loaded again");
  assert.equal(await opened(), 6);
  await t.examine(page, "bulk, completed");
  await panel.getByRole("link", { name: "1 failed" }).click();
  await page.getByRole("row").filter({ hasText: "failed" }).getByText(/open/).waitFor();
  assert.equal(await page.locator("tbody tr").count(), 1);

  // One that waits for its second wave: paused, resumed and cancelled.
  for (const keyring of keyrings.slice(0, 5)) {
    const { data } = await t.api("GET", `/v1/rotations?limit=100`);
    const open = data.find((rotation) => rotation.keyringId === keyring && rotation.open);
    if (open) await t.api("POST", `/v1/rotations/${open.id}/finish`, {});
  }
  const start = { selector: { apps: [app.clientId] }, mode: "staged", waves: [50, 100], pauseSeconds: 3_600, stopAtFailedPercent: 100 };
  const second = await t.api("POST", "/v1/bulk-rotations", start);
  await page.goto(`bulk-rotations/${second.id}`);
  await panel.getByText("3 of 6 keyrings").waitFor();
  for (const [button, word] of [["Pause", "paused"], ["Resume", "running"], ["Cancel", "cancelled"]]) {
    await page.getByRole("button", { name: button, exact: true }).click();
    await state(word).waitFor();
  }
  assert.equal(await page.getByRole("button", { name: /^(Pause|Resume|Cancel)$/ }).count(), 0);
  await panel.getByRole("link", { name: "3 waiting" }).waitFor();
  await page.getByRole("link", { name: "Bulk rotations" }).click();
  await page.getByRole("row").filter({ hasText: "cancelled" }).waitFor();
  await page.getByRole("row").filter({ hasText: "completed" }).waitFor();
});
