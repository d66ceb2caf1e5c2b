// Every page of a workspace in use: axe, both themes, both widths, no sideways scrolling, a quiet console.
import assert from "node:assert/strict";
import { everyLook } from "../every.mjs";
import { run } from "../lib.mjs";
import { PAGES, visit } from "../pages.mjs";
import { furnish } from "../world.mjs";

// What a browser loads that was never here, compressed.
const FIRST_LOAD_BYTES = 60_000;

async function firstLoad(t) {
  const page = await t.signIn();
  for (const path of ["", "deliveries"]) {
    const fresh = await t.open({ storageState: await page.context().storageState() });
    const loaded = [];
    const note = (request) => loaded.push(request);
    fresh.on("requestfinished", note);
    await fresh.goto(path, { waitUntil: "load" });
    // What ends later, such as a stream, is no part of it, and may end with the browser.
    fresh.off("requestfinished", note);
    const sizes = await Promise.all(loaded.map((request) => request.sizes()));
    const bytes = sizes.reduce((sum, size) => sum + size.responseBodySize + size.responseHeadersSize, 0);
    assert.ok(sizes.length >= 4, `${path}: ${sizes.length} files`);
    assert.ok(bytes <= FIRST_LOAD_BYTES, `the first load of /${path} takes ${bytes} bytes`);
    console.log(`first load of /${path}: ${bytes} bytes in ${sizes.length} answers`);
  }
}

await run(async (t) => {
  const ids = await furnish(t);
  const page = await t.signIn();
  for (const entry of PAGES) {
    const answer = await visit(page, entry, ids);
    assert.equal(answer.status(), 200, entry.name);
    await everyLook(t, page, entry.name, entry);
    if (entry.readme) await t.readme(page, entry);
  }
  await firstLoad(t);
});
