// The first run: one button, and a request is seen that arrived with a valid signature. Then a second event,
// and the secret is rotated under the same inbox.
import assert from "node:assert/strict";
import { heading, run } from "../lib.mjs";

await run(async (t) => {
  const page = await t.signIn();
  await heading(page, "Overview");
  await page.getByRole("heading", { name: "Nothing is delivered yet" }).waitFor();
  await page.getByRole("button", { name: "Send a first event" }).click();
  await heading(page, "Test inbox");
  // It comes by itself: the page is not loaded again.
  const requests = page.getByRole("article");
  await requests.first().getByText("signature valid").waitFor();
  assert.equal(await requests.count(), 1);
  const first = requests.first();
  for (const shown of ["webhook-id", "webhook-signature", "orderId"]) await first.getByText(shown).first().waitFor();
  await t.examine(page, "first run, arrived");

  await page.getByRole("button", { name: "Send an event" }).click();
  await requests.nth(1).waitFor();
  assert.equal(await page.getByText("signature valid").count(), 2);
  const old = await first.getByText(/by secret [0-9a-f]{8}/).innerText();

  const inbox = page.url();
  await page.getByRole("link", { name: "Rotate its secret" }).click();
  await heading(page, "Rotate");
  await page.getByRole("radio", { name: "immediate" }).check();
  await page.getByRole("button", { name: "Rotate" }).click();
  await heading(page, "The new secret");
  await page.goto(inbox);
  await page.getByRole("button", { name: "Send an event" }).click();
  await requests.nth(2).waitFor();
  assert.equal(await page.getByText("signature valid").count(), 3);
  const rotated = await first.getByText(/by secret [0-9a-f]{8}/).innerText();
  assert.notEqual(rotated, old, "the new secret signs");

  await page.getByRole("link", { name: "See the deliveries" }).click();
  await heading(page, "Deliveries");
  assert.equal(await page.locator("tbody tr").count(), 3);
  await page.getByRole("link", { name: "Overview" }).click();
  await heading(page, "Overview");
  assert.equal(await page.getByRole("button", { name: "Send a first event" }).count(), 0);
  // Bars over time, and the same numbers behind a toggle.
  await page.getByRole("img", { name: /^Attempts over time/ }).waitFor();
  await page.getByText("The numbers as a table").click();
  await page.getByRole("columnheader", { name: "Delivered" }).waitFor();
  const apps = await t.api("GET", "/v1/apps");
  assert.deepEqual(apps.data.map((app) => app.name), ["First run"]);
});
