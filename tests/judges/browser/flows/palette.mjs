// The palette and the shortcuts by keyboard alone: opened, searched, walked through, followed, closed; and the
// focus goes back to where it was.
import assert from "node:assert/strict";
import { heading, run } from "../lib.mjs";

await run(async (t) => {
  const app = await t.api("POST", "/v1/apps", { name: "Acme Shop" });
  const page = await t.signIn();
  const press = (key) => page.keyboard.press(key);
  const focus = () => page.evaluate(() => document.activeElement.id || document.activeElement.innerText);
  const field = page.getByRole("combobox", { name: "Page, app or action" });
  const options = page.getByRole("option");
  const chosen = page.locator('[role="option"][aria-selected="true"]');

  // From a field that is typed in: what stands in it stays, and so does the focus.
  await page.goto("apps");
  await page.getByLabel("Name").focus();
  await page.keyboard.type("half a na?me");
  await press("Control+K");
  await field.waitFor();
  assert.equal(await focus(), "palette-field");
  await page.getByRole("option", { name: "Acme Shop" }).waitFor();
  const all = await options.count();
  await page.keyboard.type("rotations");
  assert.ok((await options.count()) < all, "what is typed narrows the list");
  await t.examine(page, "palette, narrowed");
  const first = await chosen.innerText();
  await press("ArrowDown");
  assert.notEqual(await chosen.innerText(), first);
  assert.equal(await field.getAttribute("aria-activedescendant"), await chosen.getAttribute("id"));
  await press("ArrowUp");
  assert.equal(await chosen.innerText(), first);
  await press("ArrowUp");
  assert.equal(await chosen.innerText(), await options.last().innerText(), "it goes round");
  await page.keyboard.type(" of nothing");
  await page.getByText("Nothing matches").waitFor();
  await t.examine(page, "palette, nothing matches");
  await press("Enter");
  await press("Escape");
  await field.waitFor({ state: "hidden" });
  assert.equal(await focus(), "name");
  assert.equal(await page.getByLabel("Name").inputValue(), "half a na?me", "a ? that is typed is text");

  // To an app, a page, and an action.
  for (const [typed, name] of [["acme", "Acme Shop"], ["schedules", "Schedules"], ["bulk action", "New bulk rotation"]]) {
    await press("Control+K");
    await options.first().waitFor();
    await page.keyboard.type(typed);
    await press("Enter");
    await heading(page, name);
  }

  // The list of shortcuts, and what it lists.
  await page.goto("apps");
  const link = page.getByRole("link", { name: "Acme Shop" });
  await link.focus();
  await press("?");
  const shortcuts = page.getByRole("dialog", { name: "Keyboard shortcuts" });
  await shortcuts.waitFor();
  await t.examine(page, "shortcuts");
  await press("Escape");
  await shortcuts.waitFor({ state: "hidden" });
  assert.equal(await focus(), "Acme Shop");
  await press("g");
  await press("d");
  await heading(page, "Deliveries");

  // Whoever speaks to the computer turns the single keys off; Ctrl-K stays.
  await press("?");
  await shortcuts.waitFor();
  const tick = page.getByLabel("Keys without Ctrl work");
  for (let stops = 0; stops < 5 && !(await tick.evaluate((box) => box === document.activeElement)); stops += 1) await press("Tab");
  await press("Space");
  await press("Escape");
  await page.reload();
  await press("?");
  await press("Control+K");
  await field.waitFor();
  assert.equal(await shortcuts.count(), 0);
  await press("Escape");

  // What a key may not do is not offered; and a server that is gone is said.
  const made = await t.api("POST", "/v1/api-keys", { name: "reader", scopes: ["read"], environment: "test" });
  const reader = await t.signIn({}, made.key);
  await reader.keyboard.press("Control+K");
  await reader.getByRole("option", { name: "Acme Shop" }).waitFor();
  assert.equal(await reader.getByRole("option").filter({ hasText: "action" }).count(), 0);
  await reader.keyboard.press("Escape");
  reader.expected.add("gone");
  page.expected.add("gone");
  await t.ask("stop");
  await reader.keyboard.press("Control+K");
  await reader.getByText("The server does not answer: close this and try again").waitFor();
  await t.examine(reader, "palette, server gone");
  await t.ask("start");
  await reader.keyboard.press("Escape");
  await reader.keyboard.press("Control+K");
  await reader.getByRole("option", { name: "Acme Shop" }).waitFor();
  assert.ok(app.clientId);
});
