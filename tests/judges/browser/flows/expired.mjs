// A session that lasts four seconds, as its server is configured, really expires: under an open page that asks
// for news, under a form that was filled in meanwhile, and under one whose key expired. Each leads to sign-in,
// says why, does nothing of what was sent, and leads back.
import assert from "node:assert/strict";
import { heading, run } from "../lib.mjs";
import { accepted, policy } from "../world.mjs";

/** Signs in on the page that asks for it, and is led back. */
async function again(page, key) {
  await page.getByText("Your session has ended").waitFor();
  await page.getByLabel("API key").fill(key);
  await page.keyboard.press("Enter");
}

await run(async (t) => {
  const receiver = await t.receiver();
  const app = await t.api("POST", "/v1/apps", { name: "Expired" });
  const endpoint = await t.api("POST", `/v1/apps/${app.clientId}/endpoints`, { url: receiver.url });
  receiver.held.push(endpoint.secret.value);
  await accepted(t, app.clientId, endpoint.id);
  const opened = await t.api("POST", `/v1/keyrings/${endpoint.keyringId}/rotations`, { mode: "proven", policy });

  // The panel asks every two seconds, and one of its questions comes too late.
  const page = await t.signIn();
  await page.goto(`rotations/${opened.id}`);
  await page.locator("#rotation-panel[hx-get]").waitFor();
  await again(page, t.key);
  await heading(page, "Rotation, proven");
  assert.ok(page.url().endsWith(`/rotations/${opened.id}`), page.url());

  // A form that is sent too late: nothing is done, and the page that it was on is there again.
  const form = await t.signIn();
  await form.goto("apps");
  await form.getByLabel("Name").fill("too late");
  const old = (await form.context().cookies()).find((cookie) => cookie.name === "hookturn_session");
  await t.until("the session is over", async () => {
    const asked = { headers: { cookie: `hookturn_session=${old.value}` }, redirect: "manual" };
    return (await fetch(`${t.origin}/apps`, asked)).status === 303;
  });
  await form.getByRole("button", { name: "Make the app" }).click();
  await t.examine(form, "sign-in, session ended");
  await again(form, t.key);
  await heading(form, "Apps");
  assert.deepEqual((await t.api("GET", "/v1/apps")).data.map((one) => one.name), ["Expired"]);

  // A key that expires ends the sessions that were begun with it.
  const expiresAt = new Date(Date.now() + 2_000).toISOString();
  const made = await t.api("POST", "/v1/api-keys", { name: "short", scopes: ["read"], environment: "test", expiresAt });
  const short = await t.signIn({}, made.key);
  await short.goto(`rotations/${opened.id}`);
  await short.getByText("Your session has ended").waitFor();
  short.expected.add(401);
  await short.getByLabel("API key").fill(made.key);
  await short.keyboard.press("Enter");
  await short.locator("#key-error").waitFor();
});
