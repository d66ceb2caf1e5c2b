// The keyboard alone signs in, makes the first secret, rotates, activates and finishes. Nothing is clicked,
// and at every stop the focus can be seen.
import assert from "node:assert/strict";
import { heading, run } from "../lib.mjs";

await run(async (t) => {
  const page = await t.open();
  const press = (key) => page.keyboard.press(key);

  /** Goes on with Tab until the focus is on `wanted`. */
  async function reach(wanted) {
    for (let stops = 0; stops < 120; stops += 1) {
      const at = await page.evaluate(() => {
        const here = document.activeElement;
        const style = getComputedStyle(here);
        const label = here.labels?.[0]?.innerText ?? here.getAttribute("aria-label") ?? here.innerText;
        const seen = here === document.body || style.outlineStyle !== "none";
        return { label: (label ?? "").trim(), tag: here.tagName, seen, value: here.value };
      });
      assert.ok(at.seen, `the focus cannot be seen on ${at.tag} ${at.label}`);
      if (wanted(at)) return at;
      await press("Tab");
    }
    throw new Error(`no stop is ${wanted}`);
  }
  const field = (label) => reach((at) => ["INPUT", "SELECT"].includes(at.tag) && at.label.startsWith(label));
  const button = (label) => reach((at) => at.tag === "BUTTON" && at.label === label);
  const link = (label) => reach((at) => at.tag === "A" && at.label.startsWith(label));
  async function type(text) {
    await press("Control+A");
    await page.keyboard.type(text);
  }
  async function follow(wanted, name) {
    await wanted;
    await press("Enter");
    await heading(page, name);
  }

  await page.goto("sign-in");
  await page.keyboard.type(t.key);
  await press("Enter");
  await page.getByRole("button", { name: "Sign out" }).waitFor();

  await press("Tab");
  const first = await page.evaluate(() => document.activeElement.innerText);
  assert.equal(first, "Skip to content");
  await press("Enter");
  await page.waitForFunction(() => location.hash === "#content");

  await page.reload();
  await follow(link("Secrets"), "Secrets");
  await follow(link("Shared keyring"), "Shared keyring");
  await field("Name");
  await type("first");
  await follow(button("Create"), "The new secret");
  await follow(link("I kept it"), "Shared keyring");
  await follow(link("Rotate"), "Rotate");
  await reach((at) => at.tag === "INPUT" && ["immediate", "overlap", "staged", "proven"].includes(at.label));
  for (let turns = 0; turns < 4; turns += 1) {
    if (await page.getByRole("radio", { name: "staged" }).isChecked()) break;
    await press("ArrowDown");
  }
  assert.ok(await page.getByRole("radio", { name: "staged" }).isChecked());
  await field("Name of the new secret");
  await type("second");
  await follow(button("Rotate"), "The new secret");
  await follow(link("I kept it"), "Rotation, staged");
  await button("Promote");
  await press("Enter");
  await page.locator('[aria-current="step"]', { hasText: "overlap" }).waitFor();
  await button("Finish now");
  await press("Enter");
  await page.locator('[aria-current="step"]', { hasText: "completed" }).waitFor();
});
