// Every page of an empty workspace, and every page that says what went wrong.
import assert from "node:assert/strict";
import { everyLook } from "../every.mjs";
import { run } from "../lib.mjs";
import { ERRORS, PAGES, at } from "../pages.mjs";

await run(async (t) => {
  const stranger = await t.open();
  await stranger.goto("sign-in");
  await everyLook(t, stranger, "sign-in", { picture: true });
  const page = await t.signIn();
  for (const entry of PAGES.filter((entry) => entry.empty)) {
    await page.goto(at(entry));
    await everyLook(t, page, `${entry.name}-empty`, entry);
  }
  for (const entry of ERRORS) {
    page.expected.add(entry.status);
    const answer = await page.goto(entry.path);
    assert.equal(answer.status(), entry.status, entry.name);
    await everyLook(t, page, entry.name);
  }
});
