// Nothing moves under its reader: while live updates come in, the browser's own measure of layout shifts (what
// moved without anybody having pressed a key or a button) stays 0 on the list of deliveries, the overview, the
// live panels of rotations, one and many, and the test inbox. On a wide window and on a phone.
import assert from "node:assert/strict";
import { PHONE, WIDE, run } from "../lib.mjs";
import { accepted, policy, settled } from "../world.mjs";

/** Notes every shift of a page from its first byte on, with what moved. */
const watch = () => {
  globalThis.shifts = [];
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) {
      const what = entry.sources.map(({ node }) => (node?.outerHTML ?? node?.textContent ?? "gone").slice(0, 90));
      globalThis.shifts.push({ value: entry.value, counts: !entry.hadRecentInput, what });
    }
  }).observe({ type: "layout-shift", buffered: true });
};

/** Two frames are drawn, so that what was changed was laid out and observed. */
const drawn = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done))));

async function measured(page, name) {
  await page.evaluate(drawn);
  const shifts = (await page.evaluate(() => globalThis.shifts)).filter((shift) => shift.counts);
  const sum = shifts.reduce((all, shift) => all + shift.value, 0);
  console.log(`layout shift, ${name}: ${sum.toFixed(4)}`);
  assert.equal(sum, 0, `${name}: ${JSON.stringify(shifts)}`);
}

/** A page that is watched, of a session of its own: nothing was pressed on it. */
async function watched(t, signedIn, path, viewport) {
  const storageState = await signedIn.context().storageState();
  const page = await t.open({ storageState, viewport });
  await page.addInitScript(watch);
  await page.goto(path);
  return page;
}

/** How often a page got news from the server. */
function news(page, path) {
  const seen = { count: 0 };
  page.on("requestfinished", (request) => {
    if (request.url().includes(path)) seen.count += 1;
  });
  return async (more) => {
    const wanted = seen.count + more;
    while (seen.count < wanted) await page.waitForEvent("requestfinished");
  };
}

async function deliveries(t, signedIn, app, viewport, name) {
  const page = await watched(t, signedIn, `deliveries?app=${app}`, viewport);
  const rows = await page.locator("tbody tr").count();
  for (const number of [1, 2, 3]) {
    await t.api("POST", `/v1/apps/${app}/messages`, { eventType: "order.paid", payload: { number } });
    await page.getByRole("link", { name: `${number} new: show them` }).waitFor();
  }
  assert.equal(await page.locator("tbody tr").count(), rows);
  await measured(page, `deliveries, ${name}`);
  await settled(t, app);
}

async function rotation(t, signedIn, receiver, endpoint, viewport, name) {
  const opened = await t.api("POST", `/v1/keyrings/${endpoint.keyringId}/rotations`, { mode: "proven", policy });
  const page = await watched(t, signedIn, `rotations/${opened.id}`, viewport);
  const more = news(page, "/news");
  await more(2);
  await measured(page, `rotation, before its receiver is ready, ${name}`);
  receiver.held.splice(0, receiver.held.length, opened.secret.value);
  await page.locator('[aria-current="step"]', { hasText: "completed" }).waitFor();
  await measured(page, `rotation, to its end, ${name}`);
}

async function bulk(t, signedIn, app, viewport, name) {
  const start = { selector: { apps: [app] }, mode: "overlap", overlapSeconds: 60, waves: [50, 100], pauseSeconds: 0 };
  const made = await t.api("POST", "/v1/bulk-rotations", { ...start, stopAtFailedPercent: 100, concurrency: 1 });
  const page = await watched(t, signedIn, `bulk-rotations/${made.id}`, viewport);
  await page.locator("#bulk-panel .state", { hasText: "completed" }).first().waitFor();
  await measured(page, `bulk rotation, ${name}`);
}

async function overview(t, signedIn, app, viewport, name) {
  const page = await watched(t, signedIn, "", viewport);
  for (let number = 0; number < 5; number += 1) await t.api("POST", `/v1/apps/${app}/messages`, { eventType: "order.paid", payload: {} });
  await settled(t, app);
  await measured(page, `overview, ${name}`);
}

async function inbox(t, signedIn, app, viewport, name) {
  const made = await t.api("POST", `/v1/apps/${app}/endpoints`, { url: `http://inbox.hookturn.invalid/${name}`, events: [`sample.${name}`] });
  const page = await watched(t, signedIn, `inbox/${app}/${made.id}`, viewport);
  await news(page, "/inbox/")(2);
  await t.api("POST", `/v1/apps/${app}/messages`, { eventType: `sample.${name}`, payload: { id: name } });
  await page.getByText("signature valid").waitFor();
  await measured(page, `test inbox, ${name}`);
}

await run(async (t) => {
  const signedIn = await t.signIn();
  for (const [name, viewport] of [["wide", WIDE], ["phone", PHONE]]) {
    const receiver = await t.receiver();
    const app = await t.api("POST", "/v1/apps", { name: `Still ${name}` });
    const endpoint = await t.api("POST", `/v1/apps/${app.clientId}/endpoints`, { url: receiver.url, events: ["order.paid", "warm.up"] });
    receiver.held.push(endpoint.secret.value);
    await accepted(t, app.clientId, endpoint.id);
    await deliveries(t, signedIn, app.clientId, viewport, name);
    await overview(t, signedIn, app.clientId, viewport, name);
    await rotation(t, signedIn, receiver, endpoint, viewport, name);
    await inbox(t, signedIn, app.clientId, viewport, name);
    await bulk(t, signedIn, app.clientId, viewport, name);
  }
});
