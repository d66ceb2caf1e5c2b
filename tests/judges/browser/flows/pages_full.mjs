// Every page of a workspace in use: axe, both themes, both widths, no sideways scrolling, a quiet console.
import assert from "node:assert/strict";
import { everyLook } from "../every.mjs";
import { run } from "../lib.mjs";
import { PAGES, at } from "../pages.mjs";
import { furnish } from "../world.mjs";

await run(async (t) => {
  const ids = await furnish(t);
  const page = await t.signIn();
  for (const entry of PAGES) {
    const answer = await page.goto(at(entry, ids));
    assert.equal(answer.status(), 200, entry.name);
    await everyLook(t, page, entry.name, entry);
  }
});
