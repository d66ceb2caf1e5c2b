// The dashboard behind a reverse proxy that takes a path prefix off and names it: every link, form, stream and
// file stays below the prefix, and so does the cookie; nothing is asked of the proxy anywhere else.
import assert from "node:assert/strict";
import { createServer, request as ask } from "node:http";
import { heading, run } from "../lib.mjs";
import { accepted, policy } from "../world.mjs";

const PREFIX = "/tools/hooks";

/** A proxy on loopback that knows nothing but the prefix. */
async function proxy(t) {
  const outside = [];
  const server = createServer((request, response) => {
    if (!request.url.startsWith(`${PREFIX}/`)) {
      outside.push(request.url);
      response.writeHead(404).end("nothing here");
      return;
    }
    const headers = { ...request.headers, "x-forwarded-prefix": PREFIX };
    const options = { method: request.method, headers, path: request.url.slice(PREFIX.length) };
    const passed = ask(t.origin, options, (answer) => {
      response.writeHead(answer.statusCode, answer.rawHeaders);
      answer.pipe(response);
    });
    passed.on("error", () => response.destroy());
    response.on("close", () => passed.destroy());
    request.pipe(passed);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  server.unref();
  return { origin: `http://127.0.0.1:${server.address().port}`, outside };
}

await run(async (t) => {
  const receiver = await t.receiver();
  const made = await t.api("POST", "/v1/apps", { name: "Behind" });
  const endpoint = await t.api("POST", `/v1/apps/${made.clientId}/endpoints`, { url: receiver.url });
  receiver.held.push(endpoint.secret.value);
  await accepted(t, made.clientId, endpoint.id);
  const rotation = await t.api("POST", `/v1/keyrings/${endpoint.keyringId}/rotations`, { mode: "proven", policy });
  const front = await proxy(t);
  const page = await t.open({ baseURL: `${front.origin}${PREFIX}/` });
  page.expected.add("elsewhere");
  await page.goto("apps?x=1");
  assert.ok(page.url().startsWith(`${front.origin}${PREFIX}/sign-in?back=`), page.url());
  await page.getByLabel("API key").fill(t.key);
  await page.keyboard.press("Enter");
  await heading(page, "Apps");
  assert.equal(page.url(), `${front.origin}${PREFIX}/apps?x=1`);
  const [cookie] = await page.context().cookies();
  assert.equal(cookie.path, `${PREFIX}/`);

  // Every link of every page that the navigation leads to.
  const parts = await page.getByRole("navigation", { name: "Main" }).getByRole("link").evaluateAll((links) => links.map((link) => link.href));
  assert.ok(parts.length >= 8);
  for (const part of parts) {
    await page.goto(part);
    const leads = await page.evaluate(() => [
      ...[...document.links].map((link) => link.href),
      ...[...document.forms].map((form) => new URL(form.getAttribute("action"), document.baseURI).href),
    ]);
    for (const to of leads) assert.ok(to.startsWith(`${front.origin}${PREFIX}/`), `${part}: ${to}`);
  }
  // A form and where it leads; the palette; a link within a page.
  await page.goto("apps");
  await page.getByLabel("Name").fill("Made behind it");
  await page.getByRole("button", { name: "Make the app" }).click();
  await heading(page, "Made behind it");
  await page.keyboard.press("Control+K");
  await page.getByRole("option", { name: "Behind", exact: false }).first().waitFor();
  await page.keyboard.press("Escape");
  // What asks for news by itself: the list's stream and the panel.
  await page.goto(`deliveries?app=${made.clientId}`);
  await t.api("POST", `/v1/apps/${made.clientId}/messages`, { eventType: "order.paid", payload: {} });
  await page.getByRole("link", { name: "1 new: show them" }).click();
  await page.locator("tbody tr").nth(1).waitFor();
  await page.goto(`rotations/${rotation.id}`);
  receiver.held.splice(0, 1, rotation.secret.value);
  await page.locator('[aria-current="step"]', { hasText: "completed" }).waitFor();
  await page.goto("apps");
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByLabel("API key").waitFor();
  assert.deepEqual(await page.context().cookies(), []);
  assert.deepEqual(front.outside, [], "nothing was asked outside of the prefix");
});
