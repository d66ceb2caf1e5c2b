// A key that may only read: what it may not do is not shown, and the server refuses it all the same.
import assert from "node:assert/strict";
import { run } from "../lib.mjs";
import { furnish } from "../world.mjs";
import { PAGES, visit } from "../pages.mjs";

await run(async (t) => {
  const world = await furnish(t);
  const made = await t.api("POST", "/v1/api-keys", { name: "reader", scopes: ["read"], environment: "test" });
  const page = await t.signIn({}, made.key);
  for (const status of [403, 422]) page.expected.add(status);
  for (const entry of PAGES.filter((entry) => !entry.owner)) {
    await visit(page, entry, world);
    // Looking is all that is left: searches, the check of a captured request, and the chain's.
    const posts = await page.locator('form[method="post"]').evaluateAll((forms) => forms.map((form) => form.getAttribute("action")));
    const allowed = /^(sign-out|audit\/verify|.*\/verify(#verify)?)$/;
    assert.deepEqual(posts.filter((action) => !allowed.test(action)), [], entry.name);
    assert.equal(await page.getByRole("link", { name: /^(Rotate|New endpoint|Change it|A secret leaked|Plan a bulk rotation|Make a schedule)$/ }).count(), 0, entry.name);
  }
  // The forms of somebody who may, sent by somebody who may not.
  for (const action of [
    "apps",
    `apps/${world.app}/delete`,
    `apps/${world.app}/endpoints`,
    `apps/${world.app}/endpoints/${world.endpoint}/test`,
    `keyrings/${world.keyring}/secrets`,
    `rotations/${world.rotation}/cancel`,
    "api-keys",
    "settings",
    "first-run",
    `inbox/${world.app}/${world.inbox}`,
    "bulk-rotations/plan",
    "bulk-rotations",
    `bulk-rotations/${world.bulk}/cancel`,
    "schedules",
    `schedules/${world.schedule}/state`,
    `schedules/${world.schedule}/delete`,
  ]) {
    await page.goto("apps");
    const token = await page.locator('[action="sign-out"] [name=form_token]').inputValue();
    const status = await page.evaluate(
      async ([path, form_token]) => {
        const fields = { form_token, name: "x", version: "1", seen: "0", was: "{}", once: "1", to: "paused", all: "on", waves: "100", mode: "staged", url: "https://a.example/" };
        return (await fetch(path, { method: "POST", body: new URLSearchParams(fields), redirect: "manual" })).status;
      },
      [action, token],
    );
    assert.ok([403, 422].includes(status), `${action}: ${status}`);
  }
  const apps = await t.api("GET", "/v1/apps?limit=100");
  assert.equal(apps.data.length, world.apps, "nothing was made");
  const rotation = await t.api("GET", `/v1/rotations/${world.rotation}`);
  assert.equal(rotation.open, true, "nothing was ended");
  const bulk = await t.api("GET", `/v1/bulk-rotations/${world.bulk}`);
  assert.equal(bulk.state, "running", "nothing was cancelled");
  const schedules = await t.api("GET", "/v1/schedules");
  assert.deepEqual(schedules.data.map((schedule) => schedule.paused).sort(), [false, true], "nothing was paused or deleted");
});
