// KORE's page: a secret is created, activated, and the activation undone.
import assert from "node:assert/strict";
import { heading, run } from "../lib.mjs";

await run(async (t) => {
  const page = await t.signIn();
  page.expected.add(422);
  await page.getByRole("link", { name: "Secrets" }).click();
  await page.getByRole("link", { name: "Shared keyring" }).click();
  const values = [];
  for (const name of ["first", "second"]) {
    await page.getByLabel("Name", { exact: true }).fill(name);
    await page.getByRole("button", { name: "Create", exact: true }).click();
    await heading(page, "The new secret");
    values.push(await page.locator("#secret-value").innerText());
    const download = page.waitForEvent("download");
    await page.getByRole("link", { name: "Download" }).click();
    assert.match((await download).suggestedFilename(), /^secret-[0-9a-f]{8}\.txt$/);
    await page.getByRole("link", { name: "I kept it" }).click();
    if (name === "first") await heading(page, "Shared keyring");
    else {
      await heading(page, "Rotation, staged");
      await page.getByRole("link", { name: "Shared keyring" }).click();
    }
  }
  assert.notEqual(values[0], values[1]);
  const row = (name) => page.getByRole("row").filter({ hasText: name });
  await row("first").getByText("active").waitFor();
  await row("second").getByText("pending").waitFor();
  await page.getByLabel("Overlap").fill("soon");
  await page.getByRole("button", { name: "Activate" }).click();
  await page.locator("#overlap[aria-invalid=true]").waitFor();
  await page.getByLabel("Overlap").fill("1 h");
  await page.getByRole("button", { name: "Activate" }).click();
  await page.locator('[aria-current="step"]', { hasText: "overlap" }).waitFor();
  await page.getByRole("link", { name: "Shared keyring" }).click();
  await row("second").getByText("active", { exact: true }).waitFor();
  await row("first").getByText("retiring").waitFor();

  await page.getByRole("link", { name: "What it waits for" }).click();
  const undo = page.getByRole("form", { name: "Undo" });
  await undo.getByLabel("Why").fill("too early");
  await undo.getByRole("button", { name: "Undo" }).click();
  await page.locator('[aria-current="step"]', { hasText: "undone" }).waitFor();
  await page.getByRole("link", { name: "Shared keyring" }).click();
  await row("first").getByText("active", { exact: true }).waitFor();
  for (const value of values) assert.ok(!(await page.content()).includes(value));
});
