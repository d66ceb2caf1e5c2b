// Deliveries that were given up are sent again: filtered, counted, confirmed.
import assert from "node:assert/strict";
import { heading, run } from "../lib.mjs";
import { settled } from "../world.mjs";

await run(async (t) => {
  let works = false;
  const receiver = await t.receiver({ answer: () => [works ? 204 : 503, works ? "" : "down for maintenance"] });
  const app = await t.api("POST", "/v1/apps", { name: "Retried" });
  const id = app.clientId;
  await t.api("POST", `/v1/apps/${id}/endpoints`, { url: receiver.url, retry: { delaysMillis: [] } });
  const messages = Array.from({ length: 7 }, (_, number) => ({
    eventType: number < 5 ? "order.paid" : "order.refunded",
    payload: { number },
  }));
  await t.api("POST", `/v1/apps/${id}/messages/batch`, { messages });
  await settled(t, id);

  const page = await t.signIn();
  await page.goto(`deliveries?app=${id}`);
  await page.getByLabel("Status").selectOption("exhausted");
  await page.getByLabel("Event type").fill("order.paid");
  await page.getByRole("button", { name: "Filter" }).click();
  await page.waitForURL(/event_type=order\.paid|type=order\.paid/);
  const rows = page.locator("tbody tr");
  assert.equal(await rows.count(), 5);
  await page.getByRole("button", { name: "Tick all" }).click();
  assert.equal(await page.locator("tbody input:checked").count(), 5);
  await page.getByRole("button", { name: "Tick all" }).click();
  assert.equal(await page.locator("tbody input:checked").count(), 0);

  await page.getByRole("button", { name: "Send all that match" }).click();
  await heading(page, "Send again?");
  await page.locator(".card", { hasText: "5 would be queued again" }).waitFor();
  await t.examine(page, "retry, asked");
  assert.equal(receiver.requests.length, 7, "a dry run sends nothing");
  works = true;
  await page.getByRole("button", { name: "Queue them again" }).click();
  await heading(page, "Queued again");
  await page.getByText("5 queued, due now").waitFor();
  await t.until("all five are delivered", async () => {
    const found = await t.api("GET", `/v1/apps/${id}/deliveries?status=delivered&limit=50`);
    return found.data.length === 5;
  });
  await page.getByRole("link", { name: "Back to the list" }).click();
  await page.getByText("Nothing matches").waitFor();

  // New ones wait behind a word; the list does not move by itself.
  await page.goto(`deliveries?app=${id}`);
  assert.equal(await rows.count(), 7);
  await t.api("POST", `/v1/apps/${id}/messages`, { eventType: "order.paid", payload: {} });
  const fresh = page.getByRole("link", { name: "1 new: show them" });
  await fresh.waitFor();
  assert.equal(await rows.count(), 7);
  await fresh.click();
  await page.locator("tbody tr").nth(7).waitFor();
});
