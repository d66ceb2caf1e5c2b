// Hostile text from receivers, publishers and owners is shown as text: no script runs, no markup appears,
// nothing turns the direction of what stands around it, and 16 KiB of it break no page.
import assert from "node:assert/strict";
import { PHONE, WIDE, run } from "../lib.mjs";
import { settled } from "../world.mjs";

const EVIL = '"><img src=x onerror=alert(1)><script>globalThis.owned=1</script>\u202e\u2066txt\u0000{{7*7}}</pre></textarea>';
const LONG = "W".repeat(16 * 1024);

await run(async (t) => {
  const receiver = await t.receiver({
    answer: (_, body) => [body.includes("long") ? 500 : 400, body.includes("long") ? LONG : EVIL, { "x-evil": "<script>alert(2)</script>", "x-long": LONG.slice(0, 7_000), "content-type": "text/html" }],
  });
  const app = await t.api("POST", "/v1/apps", { name: EVIL.replace("\u0000", "").slice(0, 190) });
  const id = app.clientId;
  const endpoint = await t.api("POST", `/v1/apps/${id}/endpoints`, {
    url: `${receiver.url}?a=%22%3E%3Cscript%3Ealert(3)%3C/script%3E`,
    description: EVIL.replace("\u0000", ""),
    retry: { delaysMillis: [] },
  });
  for (const payload of [{ evil: EVIL }, { long: LONG }]) {
    await t.api("POST", `/v1/apps/${id}/messages`, { eventType: "order.paid", payload });
  }
  await settled(t, id);
  const name = EVIL.replace("\u0000", "");
  await t.api("POST", `/v1/keyrings/${endpoint.keyringId}/secrets`, { name });
  const inbox = await t.api("POST", `/v1/apps/${id}/endpoints`, { url: "http://inbox.hookturn.invalid/hostile", events: ["order.paid"] });
  for (const payload of [{ evil: EVIL }, { long: LONG }]) {
    await t.api("POST", `/v1/apps/${id}/messages`, { eventType: "order.paid", payload });
  }
  await settled(t, id);
  const bulk = await t.api("POST", "/v1/bulk-rotations", { selector: { all: true }, mode: "staged", waves: [100], reason: name });
  const schedule = await t.api("POST", "/v1/schedules", { name, clientId: id, everyDays: 30 });
  const key = await t.api("POST", "/v1/api-keys", { name: name.slice(0, 100), scopes: ["read"], environment: "test" });
  const deliveries = await t.api("GET", `/v1/apps/${id}/deliveries?limit=10`);
  const rotations = await t.api("GET", "/v1/rotations");

  const page = await t.signIn();
  page.expected.add(422);
  page.expected.add(404);
  assert.equal(deliveries.data.length, 6);
  const paths = [
    "",
    "apps",
    `apps/${id}`,
    `apps/${id}/endpoints/${endpoint.id}`,
    `apps/${id}/endpoints/${endpoint.id}/edit`,
    "deliveries",
    ...deliveries.data.map((delivery) => `deliveries/${delivery.id}`),
    `deliveries?text=${encodeURIComponent(EVIL)}`,
    "secrets",
    `secrets?q=${encodeURIComponent(EVIL)}`,
    `keyrings/${endpoint.keyringId}`,
    `keyrings/${endpoint.keyringId}/rotate`,
    "rotations",
    ...rotations.data.map((rotation) => `rotations/${rotation.id}`),
    `inbox/${id}/${inbox.id}`,
    "bulk-rotations",
    `bulk-rotations/${bulk.id}`,
    "schedules",
    `schedules/${schedule.id}`,
    `schedules/${schedule.id}/edit`,
    "audit",
    `audit?actor=${encodeURIComponent(EVIL)}`,
    "api-keys",
    `api-keys/${key.id}`,
    "settings",
    `no-such-page/${encodeURIComponent(EVIL)}`,
  ];
  const isText = async (where) => {
    const foreign = await page.evaluate(() => ({
      owned: globalThis.owned,
      images: document.images.length,
      inline: document.querySelectorAll("script:not([src]), [onerror], iframe, object").length,
      turned: /[\u202a-\u202e\u2066-\u2069]/.test(document.body.innerText),
    }));
    assert.deepEqual(foreign, { owned: undefined, images: 0, inline: 0, turned: false }, where);
  };
  for (const path of paths) {
    for (const viewport of [WIDE, PHONE]) {
      await page.setViewportSize(viewport);
      await page.goto(path);
      for (const details of await page.locator("details").all()) await details.evaluate((element) => (element.open = true));
      await t.examine(page, `hostile ${path.slice(0, 60)} at ${viewport.width}`);
    }
    await isText(path);
  }
  // What comes of a test event, of a captured request, of a question about many, and in the palette.
  await page.goto(`apps/${id}/endpoints/${endpoint.id}`);
  await page.getByRole("button", { name: "Send a test event" }).click();
  await page.locator(".result", { hasText: "400" }).waitFor();
  await isText("a test event");
  for (const [headers, body] of [[`x-evil: ${EVIL.replace("\u0000", "")}`, LONG], [EVIL.replaceAll(":", ""), EVIL]]) {
    await page.getByLabel("Headers, one a line").fill(headers);
    await page.getByLabel("Body, exactly as it came").fill(body);
    await page.getByRole("button", { name: "Verify" }).click();
    await page.locator("#verify-headers[aria-invalid=true], [aria-labelledby=verify] .result").first().waitFor();
    await isText("a captured request");
    await t.examine(page, "hostile, a captured request");
  }
  await page.goto(`deliveries?text=${encodeURIComponent("onerror")}`);
  await page.getByRole("button", { name: "Send all that match" }).click();
  await page.getByRole("heading", { level: 1, name: "Send again?" }).waitFor();
  await isText("many again");
  await page.keyboard.press("Control+K");
  await page.getByRole("option").filter({ hasText: "onerror" }).first().waitFor();
  await isText("the palette");
  await page.keyboard.press("Escape");
  await page.goto(`sign-in?back=${encodeURIComponent("https://evil.example/")}`);
  await page.getByLabel("API key").fill(t.key);
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: "Sign out" }).waitFor();
  assert.ok(page.url().startsWith(t.origin), page.url());
});
