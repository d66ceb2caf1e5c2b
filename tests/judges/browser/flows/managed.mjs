// An endpoint is edited, paused, enabled and deleted by its pages, and its app after it: each says what it does
// before it is done, and what was typed is kept when it is refused or when somebody else was first.
import assert from "node:assert/strict";
import { heading, run } from "../lib.mjs";
import { settled } from "../world.mjs";

await run(async (t) => {
  const receiver = await t.receiver();
  const app = await t.api("POST", "/v1/apps", { name: "Managed" });
  const id = app.clientId;
  const made = await t.api("POST", `/v1/apps/${id}/endpoints`, { url: receiver.url, description: "old" });
  const there = `/v1/apps/${id}/endpoints/${made.id}`;
  const now = () => t.api("GET", there);

  const page = await t.signIn();
  page.expected.add(422);
  page.expected.add(412);
  page.expected.add(404);
  await page.getByRole("link", { name: "Apps", exact: true }).click();
  await page.getByRole("link", { name: "Managed" }).click();
  await page.getByRole("link", { name: receiver.url }).click();
  await heading(page, receiver.url);

  // Edited: refused first, then raced, then stored.
  await page.getByRole("link", { name: "Change it" }).click();
  await heading(page, "Change the endpoint");
  await page.getByLabel("Description").fill("mine");
  await page.getByLabel("Longest time of one attempt").fill("for ever");
  await page.getByRole("button", { name: "Store" }).click();
  await page.locator("#f-timeout[aria-invalid=true]").waitFor();
  assert.equal(await page.getByLabel("Description").inputValue(), "mine");
  await page.getByLabel("Longest time of one attempt").fill("20s");
  await t.api("PATCH", there, { description: "theirs" });
  await page.getByRole("button", { name: "Store" }).click();
  await page.getByRole("alert").getByText("Somebody else changed this meanwhile").waitFor();
  await page.getByRole("row").filter({ hasText: "theirs" }).waitFor();
  assert.equal(await page.getByLabel("Description").inputValue(), "mine");
  await t.examine(page, "endpoint, changed meanwhile");
  assert.equal((await now()).description, "theirs", "nothing was stored");
  await page.getByRole("link", { name: "Reload and drop what I typed" }).click();
  await page.waitForFunction(() => document.querySelector("#f-description").value === "theirs");
  await page.getByLabel("Description").fill("mine");
  await page.getByLabel("Longest time of one attempt").fill("20s");
  await page.getByRole("button", { name: "Store" }).click();
  await heading(page, receiver.url);
  await page.getByText("20000 ms").waitFor();
  assert.equal((await now()).description, "mine");

  // Paused: what is published waits; a page that is older is told what happened, and is loaded again.
  const stale = await page.context().newPage();
  await stale.goto(page.url());
  await page.locator("summary", { hasText: "Pause" }).click();
  await page.getByText("Messages are kept and wait").waitFor();
  await page.getByRole("button", { name: "Pause the endpoint" }).click();
  await page.locator("main .state", { hasText: "paused" }).waitFor();
  assert.equal((await now()).state, "paused");
  await t.api("POST", `/v1/apps/${id}/messages`, { eventType: "order.paid", payload: {} });
  assert.equal(receiver.requests.length, 0, "it waits");
  await stale.locator("summary", { hasText: "Delete" }).click();
  await stale.getByRole("button", { name: "Delete the endpoint" }).click();
  await stale.getByRole("alert").getByText("endpoint.").waitFor();
  assert.equal((await now()).state, "paused", "it is there");
  await stale.getByRole("link", { name: "Load it again" }).click();
  await stale.locator("#stale").waitFor({ state: "detached" });
  await stale.close();
  await page.locator("summary", { hasText: "Enable" }).click();
  await page.getByRole("button", { name: "Enable the endpoint" }).click();
  await page.locator("main .state", { hasText: "enabled" }).waitFor();
  await settled(t, id);
  assert.equal(receiver.requests.length, 1, "what waited went out");

  // Deleted: what that means stands there first.
  await page.locator("summary", { hasText: "Delete" }).click();
  await page.getByText("nobody can undo that").waitFor();
  await t.examine(page, "endpoint, before it is deleted");
  await page.getByRole("button", { name: "Delete the endpoint" }).click();
  await heading(page, "Managed");
  await page.getByText("No endpoint yet").waitFor();
  const gone = await page.goto(`apps/${id}/endpoints/${made.id}`);
  assert.equal(gone.status(), 404);

  await page.goto(`apps/${id}`);
  await page.locator("summary", { hasText: "Delete the app" }).click();
  await page.getByLabel("Type its name").fill("managed, I think");
  await page.getByRole("button", { name: "Delete the app" }).click();
  await page.locator("#confirm_name-error").waitFor();
  assert.equal(await page.getByLabel("Type its name").inputValue(), "managed, I think");
  await page.getByLabel("Type its name").fill("Managed");
  await page.getByRole("button", { name: "Delete the app" }).click();
  await page.getByText("No app yet").waitFor();
  assert.deepEqual((await t.api("GET", "/v1/apps")).data, []);
});
