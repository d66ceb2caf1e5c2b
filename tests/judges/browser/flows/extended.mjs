// An overlap is extended: what cannot be is told beside the field and what was typed is kept, then the time at
// which the old secret retires moves, on the page and at the server. Whoever was not first is told what happened.
import assert from "node:assert/strict";
import { run } from "../lib.mjs";

const HOUR = 3_600_000;

await run(async (t) => {
  const receiver = await t.receiver();
  const app = await t.api("POST", "/v1/apps", { name: "Extended" });
  const endpoint = await t.api("POST", `/v1/apps/${app.clientId}/endpoints`, { url: receiver.url });
  const rotate = { mode: "overlap", overlapSeconds: 7_200 };
  const opened = await t.api("POST", `/v1/keyrings/${endpoint.keyringId}/rotations`, rotate);
  const retires = async () => Date.parse((await t.api("GET", `/v1/rotations/${opened.id}`)).retireAt);
  const before = await retires();

  const page = await t.signIn();
  page.expected.add(422);
  page.expected.add(412);
  await page.goto(`rotations/${opened.id}`);
  const shown = async () => {
    const time = page.locator("#rotation-panel dt", { hasText: "retires" }).locator("xpath=following-sibling::dd[1]").locator("time");
    return Date.parse(await time.getAttribute("datetime"));
  };
  assert.equal(await shown(), before);
  const extend = page.getByRole("form", { name: "Extend" });
  await extend.getByLabel("Longer by").fill("a while");
  await extend.getByLabel("Why").fill("they are on holiday");
  await extend.getByRole("button").click();
  await page.locator("#extend-by[aria-invalid=true]").waitFor();
  assert.equal(await extend.getByLabel("Longer by").inputValue(), "a while");
  assert.equal(await extend.getByLabel("Why").inputValue(), "they are on holiday");
  await t.examine(page, "extend, refused");
  assert.equal(await retires(), before, "nothing moved");
  await extend.getByLabel("Longer by").fill("90 d");
  await extend.getByRole("button").click();
  await page.getByText("at most 30 days").waitFor();
  assert.equal(await extend.getByLabel("Longer by").inputValue(), "90 d");
  assert.equal(await retires(), before, "not beyond what is allowed");
  await extend.getByLabel("Longer by").fill("5 h");
  const stale = await page.context().newPage();
  await stale.goto(`rotations/${opened.id}`);
  await extend.getByRole("button").click();
  await page.waitForFunction((old) => Date.parse(document.querySelector("#rotation-panel dd time[datetime]")?.dateTime) !== old, before);
  assert.equal((await retires()) - before, 5 * HOUR);
  assert.equal(await shown(), await retires());

  const late = stale.getByRole("form", { name: "Extend" });
  if (await late.locator("[name=version]").count()) {
    await late.locator("[name=version]").evaluate((field) => (field.value = String(Number(field.value) - 1)));
    await late.getByLabel("Longer by").fill("1 h");
    await late.getByRole("button").click();
    await stale.getByRole("alert").getByText("rotation.extended").waitFor();
    await stale.locator("#stale").getByRole("link", { name: "Load it again" }).click();
    await stale.locator("#stale").waitFor({ state: "detached" });
  }
  assert.equal((await retires()) - before, 5 * HOUR, "once");
  const told = await t.api("GET", "/v1/audit?limit=100");
  const extended = told.data.filter((one) => one.action === "rotation.extended");
  assert.deepEqual(extended.map((entry) => entry.reason), ["they are on holiday"]);
});
