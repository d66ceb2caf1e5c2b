// A foreign origin posts the dashboard's forms in the name of somebody who is signed in: from the same host
// at another port, where the browser sends the cookie along, and from another host, where it does not.
// Nothing is done, and no other page may frame ours.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { run } from "../lib.mjs";

await run(async (t) => {
  const page = await t.signIn();
  for (const what of [403, "elsewhere"]) page.expected.add(what);
  await page.goto("apps");
  // The worst case: the foreign page even knows the token.
  const token = await page.locator('[action="sign-out"] [name=form_token]').inputValue();
  const evil = createServer((request, response) => {
    response.writeHead(200, { "content-type": "text/html" });
    if (request.url === "/frame") response.end(`<title>evil</title><iframe src="${t.origin}/apps"></iframe>`);
    else
      response.end(`<title>evil</title><form method="post" action="${t.origin}/apps">
        <input name="name" value="planted"><input name="form_token" value="${token}"><button>Win a prize</button></form>`);
  });
  await new Promise((resolve) => evil.listen(0, "127.0.0.1", resolve));
  evil.unref();
  const { port } = evil.address();

  await page.goto(`http://127.0.0.1:${port}/`);
  const refused = page.waitForResponse((response) => response.url() === `${t.origin}/apps`);
  await page.getByRole("button", { name: "Win a prize" }).click();
  assert.equal((await refused).status(), 403, "the same host at another port");
  await page.getByText("nothing was changed").waitFor();

  // From another host the cookie stays at home (SameSite): whoever is not signed in is led to sign in.
  await page.goto(`http://localhost:${port}/`);
  await page.getByRole("button", { name: "Win a prize" }).click();
  await page.getByLabel("API key").waitFor();

  page.expected.add("framed");
  const framed = await page.context().newPage();
  await framed.goto(`http://127.0.0.1:${port}/frame`);
  assert.ok(!(await framed.frames()[1].content()).includes("Sign out"), "framed by a foreign page");

  const apps = await t.api("GET", "/v1/apps");
  assert.deepEqual(apps.data, [], "nothing was made");
  await page.goto("apps");
  await page.getByText("No app yet").waitFor();
});
