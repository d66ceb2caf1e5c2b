// Every page of an empty workspace, and every page that says what went wrong.
import assert from "node:assert/strict";
import { everyLook } from "../every.mjs";
import { run } from "../lib.mjs";
import { ERRORS, PAGES, REFUSED, visit } from "../pages.mjs";

await run(async (t) => {
  const stranger = await t.open();
  await stranger.goto("sign-in");
  await everyLook(t, stranger, "sign-in", { picture: true });
  const page = await t.signIn();
  for (const entry of PAGES.filter((entry) => entry.empty)) {
    await visit(page, entry);
    await everyLook(t, page, `${entry.name}-empty`, entry);
  }
  for (const entry of REFUSED) {
    page.expected.add(422);
    await page.goto(entry.path);
    for (const [label, text] of Object.entries(entry.typed)) await page.getByLabel(label).fill(text);
    await page.getByRole("button", { name: entry.button }).click();
    await page.locator("[aria-invalid=true]").first().waitFor();
    await everyLook(t, page, entry.name, { picture: true });
  }
  for (const entry of ERRORS) {
    page.expected.add(entry.status);
    const answer = await page.goto(entry.path);
    assert.equal(answer.status(), entry.status, entry.name);
    await everyLook(t, page, entry.name);
  }
});
