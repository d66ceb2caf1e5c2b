// An app and an endpoint are made; the endpoint's secret is shown once, and its value signs.
import assert from "node:assert/strict";
import { heading, run } from "../lib.mjs";

await run(async (t) => {
  const receiver = await t.receiver();
  const page = await t.signIn({ permissions: ["clipboard-read", "clipboard-write"] });
  page.expected.add(422);
  await page.getByRole("link", { name: "Apps", exact: true }).click();
  await page.getByText("No app yet").waitFor();
  await page.getByLabel("Name").fill("Acme Shop");
  await page.getByRole("button", { name: "Make the app" }).click();
  await heading(page, "Acme Shop");
  await page.getByRole("link", { name: "New endpoint" }).click();
  await page.getByLabel("URL", { exact: true }).fill("not a url");
  await page.getByLabel("Description").fill("kept when it is refused");
  await page.getByRole("button", { name: "Make the endpoint" }).click();
  await page.locator("#f-url[aria-invalid=true]").waitFor();
  assert.equal(await page.getByLabel("Description").inputValue(), "kept when it is refused");
  await t.examine(page, "endpoint, refused");
  await page.getByLabel("URL", { exact: true }).fill(receiver.url);
  await page.getByRole("button", { name: "Make the endpoint" }).click();
  await page.getByText("shown this once").waitFor();
  const secret = await page.locator("#secret").innerText();
  assert.match(secret, /^whsec_/);
  await page.getByRole("button", { name: "Copy" }).click();
  await page.locator("#status", { hasText: "Copied" }).waitFor();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), secret);

  await page.getByRole("link", { name: "To the endpoint" }).click();
  await heading(page, receiver.url);
  assert.ok(!(await page.content()).includes(secret));
  receiver.held.push(secret);
  await page.getByRole("button", { name: "Send a test event" }).click();
  await page.locator(".result", { hasText: "204" }).waitFor();
  assert.equal(receiver.requests.length, 1);

  await page.getByRole("main").locator('a[href^="keyrings/"]').click();
  await heading(page, receiver.url);
  await page.getByRole("link", { name: "Rotate", exact: true }).waitFor();
  assert.ok(!(await page.content()).includes(secret), "nor on any page after that");
});
