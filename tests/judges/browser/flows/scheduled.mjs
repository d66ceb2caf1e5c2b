// A schedule is made, says what it will open and when, is paused and changed, and is deleted. Whoever changes
// it at the same time is told apart from whoever was first.
import assert from "node:assert/strict";
import { heading, run } from "../lib.mjs";

await run(async (t) => {
  const app = await t.api("POST", "/v1/apps", { name: "Scheduled" });
  await t.api("POST", `/v1/apps/${app.clientId}/endpoints`, { url: "http://127.0.0.1:9/scheduled" });
  const page = await t.signIn();
  page.expected.add(422);
  page.expected.add(412);
  await page.getByRole("link", { name: "Rotations" }).click();
  await page.getByRole("link", { name: "By schedule" }).click();
  await page.getByText("No schedule yet").waitFor();
  await page.getByRole("link", { name: "Make a schedule" }).click();
  await heading(page, "New schedule");
  await page.getByLabel("Name").fill("every quarter");
  await page.getByLabel("Rotations are due").selectOption("calendar");
  await page.getByLabel("Time zone").fill("Europe/Atlantis");
  await page.getByRole("button", { name: "Make the schedule" }).click();
  await page.locator("#f-zone[aria-invalid=true]").waitFor();
  assert.equal(await page.getByLabel("Name").inputValue(), "every quarter");
  await page.getByLabel("Time zone").fill("Europe/Berlin");
  await page.getByLabel("Never in these parts of a week").fill("friday 18:00 - monday 08:00");
  await page.getByRole("button", { name: "Make the schedule" }).click();
  await heading(page, "every quarter");
  await page.getByText("every 3 months from January on, on day 1 at 04:00 (Europe/Berlin)").waitFor();
  await page.getByRole("row").filter({ hasText: "127.0.0.1:9/scheduled" }).first().waitFor();

  const stale = await page.context().newPage();
  await stale.goto(page.url());
  await page.getByRole("button", { name: "Pause" }).click();
  await page.locator("main .state", { hasText: "paused" }).waitFor();
  await page.getByText("It is paused: nothing is opened").waitFor();
  await t.examine(page, "schedule, paused");
  stale.on("dialog", () => t.troubles.push("a dialog of the browser's own"));
  await stale.getByRole("button", { name: "Pause" }).click();
  await stale.getByRole("alert").getByText("Nothing was done").waitFor();
  await stale.getByRole("alert").getByText("schedule.updated").waitFor();
  await stale.getByRole("link", { name: "Load it again" }).click();
  await stale.getByRole("button", { name: "Resume" }).waitFor();
  await stale.close();

  await page.getByRole("link", { name: "Change it" }).click();
  await heading(page, "Change the schedule");
  const made = (await t.api("GET", "/v1/schedules")).data[0];
  await t.api("PATCH", `/v1/schedules/${made.id}`, { timeZone: "Asia/Tokyo" });
  await page.getByLabel("Name").fill("every quarter, in Berlin");
  await page.getByRole("button", { name: "Store" }).click();
  await page.getByRole("alert").getByText("Somebody else changed this meanwhile").waitFor();
  await page.getByRole("row").filter({ hasText: "Asia/Tokyo" }).waitFor();
  assert.equal(await page.getByLabel("Name").inputValue(), "every quarter, in Berlin");
  await t.examine(page, "schedule, changed meanwhile");
  await page.getByRole("button", { name: "Store mine over it" }).click();
  await heading(page, "every quarter, in Berlin");
  await page.getByRole("button", { name: "Resume" }).click();
  await page.locator("main .state", { hasText: "running" }).waitFor();

  await page.getByText("Delete", { exact: true }).click();
  await page.getByRole("button", { name: "Delete the schedule" }).click();
  await page.getByText("No schedule yet").waitFor();
});
