// A page that is long in coming says so, at every list; the one that is left stays where it is, and whoever
// stops waiting has it back. What comes late is a request that the test holds until it has looked.
import assert from "node:assert/strict";
import { LOOKS } from "../every.mjs";
import { heading, run } from "../lib.mjs";
import { furnish } from "../world.mjs";

// The link to each list, which the page before it shows, and its heading where that has other words.
const LISTS = [
  ["Apps"],
  ["Deliveries"],
  ["Secrets"],
  ["Rotations"],
  ["In bulk", "Bulk rotations"],
  ["By schedule", "Schedules"],
  ["Audit"],
  ["API keys"],
];

/** Holds the next page that is asked for until `release` is called. */
async function hold(page) {
  let release;
  const released = new Promise((resolve) => (release = resolve));
  const isPage = (request) => request.isNavigationRequest();
  await page.route("**/*", async (route) => {
    if (isPage(route.request())) await released;
    // One that was given up is gone by now.
    await route.continue().catch(() => {});
  });
  return async () => {
    release();
    await page.unrouteAll({ behavior: "wait" });
  };
}

await run(async (t) => {
  await furnish(t);
  const page = await t.signIn();
  const loading = page.locator("#status", { hasText: "Loading" });
  for (const [number, [link, name = link]] of LISTS.entries()) {
    const before = page.url();
    const release = await hold(page);
    await page.getByRole("link", { name: link, exact: true }).click({ noWaitAfter: true });
    await loading.waitFor();
    assert.equal(page.url(), before, `${name}: the page that is left stays`);
    const look = LOOKS[number % LOOKS.length];
    await page.emulateMedia({ colorScheme: look.theme });
    await t.examine(page, `${name} loading, ${look.theme}`);
    await release();
    await heading(page, name);
    await loading.waitFor({ state: "hidden" });
  }

  // Whoever stops waiting has the page that was there.
  const release = await hold(page);
  await page.getByRole("link", { name: "Overview", exact: true }).click({ noWaitAfter: true });
  await loading.waitFor();
  await page.keyboard.press("Escape");
  await loading.waitFor({ state: "hidden" });
  await release();
});
