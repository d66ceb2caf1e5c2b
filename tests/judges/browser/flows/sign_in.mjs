// Signing in with a wrong key and with the right one, being led back, signing out; a session whose key is
// revoked while its page is open.
import assert from "node:assert/strict";
import { heading, run } from "../lib.mjs";

await run(async (t) => {
  const page = await t.open();
  page.expected.add(401);
  await page.goto("deliveries?status=exhausted");
  const key = page.getByLabel("API key");
  assert.ok(await key.evaluate((field) => field === document.activeElement), "the field is ready to be typed in");
  await key.fill("sk_workspace_test_wrong");
  await page.keyboard.press("Enter");
  await page.locator("#key-error").waitFor();
  assert.equal(await key.getAttribute("aria-invalid"), "true");
  assert.equal(await key.inputValue(), "", "a key is not written into a page");
  await t.examine(page, "sign-in, wrong key");
  await key.fill(t.key);
  await page.keyboard.press("Enter");
  await heading(page, "Deliveries");
  assert.match(page.url(), /\/deliveries\?status=exhausted$/, "led to where it wanted to go");
  const cookies = await page.context().cookies();
  assert.ok(cookies.every((cookie) => cookie.httpOnly && cookie.sameSite === "Strict"));
  assert.equal(await page.evaluate(() => document.cookie), "");

  // Whoever asks for less motion gets none; others get a little.
  const moves = () => page.evaluate(() => [...document.querySelectorAll("*")].filter((one) => {
    const { animationName, transitionDuration } = getComputedStyle(one);
    return animationName !== "none" || transitionDuration.split(", ").some((time) => parseFloat(time) > 0);
  }).length);
  assert.equal(await moves(), 0);
  await page.emulateMedia({ reducedMotion: "no-preference" });
  assert.ok((await moves()) > 0, "the test sees what moves");
  await page.emulateMedia({ reducedMotion: "reduce" });

  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByLabel("API key").waitFor();
  await page.goBack();
  await page.getByLabel("API key").waitFor();

  const made = await t.api("POST", "/v1/api-keys", { name: "short", scopes: ["read"], environment: "test" });
  const other = await t.signIn({}, made.key);
  await t.api("DELETE", `/v1/api-keys/${made.id}`);
  await other.getByRole("link", { name: "Apps", exact: true }).click();
  await other.getByLabel("API key").waitFor();
  assert.match(other.url(), /\/sign-in/);
});
