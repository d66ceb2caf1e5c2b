// Every sample of every page, as the template renders it: so every state is looked at that a page has,
// also those that are hard to come by. A new page needs no line here.
import { readFileSync } from "node:fs";
import { everyLook } from "../every.mjs";
import { run } from "../lib.mjs";

await run(async (t) => {
  const { pages, policy } = JSON.parse(readFileSync(t.samples, "utf8"));
  const page = await t.open();
  const headers = { "content-type": "text/html; charset=utf-8", "content-security-policy": policy };
  await page.route("**/samples/*", (route) => {
    const name = new URL(route.request().url()).pathname.split("/").at(-1);
    return route.fulfill({ status: 200, headers, body: pages[name] });
  });
  // Samples ask nobody for news.
  await page.route("**/rotations/*/news**", (route) => route.fulfill({ status: 204 }));
  await page.route("**/deliveries/live**", (route) => route.fulfill({ status: 204 }));
  await page.route("**/bulk-rotations/*", (route) => route.fulfill({ status: 204 }));
  await page.route("**/inbox/**", (route) => route.fulfill({ status: 204 }));
  for (const [number, name] of Object.keys(pages).entries()) {
    if (number % 10 === 0) console.log(`${number} of ${Object.keys(pages).length} samples`);
    await page.goto(`samples/${name}`);
    for (const details of await page.locator("details").all()) await details.evaluate((element) => (element.open = true));
    await everyLook(t, page, name);
  }
});
