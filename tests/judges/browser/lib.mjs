// What every flow stands on: a browser, a client of the API, receivers on loopback, and eyes that are open
// the whole time. A flow is a script in `flows/`; `crates/server/tests/browser` starts the server, then
// the script with
//
//   HOOKTURN_JUDGE_NODE   where playwright-core, axe-core and standardwebhooks are installed
//   HOOKTURN_BROWSER      JSON: origin and key of the server, file of the rendered samples, folder for pictures
//
// The script ends with 0 when the flow went well, and says otherwise what went wrong. It may ask the test
// to stop and to start the server: a line `{"ask":"stop"}` on standard output, the answer a line on standard
// input. Nothing here sleeps: every wait is for an event, and every event has a deadline.
//
// Whatever page a flow opens is watched: a script error, a dialog of the browser's own, a breach of the
// Content-Security-Policy, an error in the console and a request to anywhere but the server fail the flow.

import assert from "node:assert/strict";
import { accessSync, constants, mkdirSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { delimiter, join } from "node:path";
import { createInterface } from "node:readline";

const need = createRequire(join(process.env.HOOKTURN_JUDGE_NODE ?? "", "browser.mjs"));
const { chromium } = need("playwright-core");
const { Webhook } = need("standardwebhooks");
const AXE = need("axe-core").source;

const given = JSON.parse(process.env.HOOKTURN_BROWSER);
const DEADLINE_MILLIS = 30_000;
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"];

export const WIDE = { width: 1280, height: 800 };
export const PHONE = { width: 390, height: 844 };

function browserPath() {
  const names = ["chromium", "chromium-browser", "google-chrome"];
  for (const folder of (process.env.PATH ?? "").split(delimiter)) {
    for (const name of names) {
      try {
        accessSync(join(folder, name), constants.X_OK);
        return join(folder, name);
      } catch {
        // The next one.
      }
    }
  }
  throw new Error("there is no Chromium: run cargo xtask test");
}

/** Runs a flow and ends the process with what became of it. */
export async function run(flow) {
  const browser = await chromium.launch({ executablePath: browserPath(), args: FLAGS });
  const world = new World(browser);
  let failure;
  try {
    await flow(world);
    world.judge();
  } catch (error) {
    failure = error;
    await world.describe();
  }
  await browser.close();
  if (failure) console.error(failure);
  process.exit(failure ? 1 : 0);
}

class World {
  origin = given.origin;
  key = given.key;
  samples = given.samples;
  troubles = [];
  pages = [];
  checks = [];

  constructor(browser) {
    this.browser = browser;
    this.answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  }

  /** A page in a browser of its own: no cookie of another one. */
  async open({ theme = "light", viewport = WIDE, ...more } = {}) {
    const context = await this.browser.newContext({
      baseURL: `${this.origin}/`,
      colorScheme: theme,
      viewport,
      reducedMotion: "reduce",
      ...more,
    });
    context.setDefaultTimeout(DEADLINE_MILLIS);
    await context.addInitScript(() => {
      document.addEventListener("securitypolicyviolation", (event) => {
        console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`);
      });
    });
    const page = await context.newPage();
    page.expected = new Set();
    this.watch(page);
    this.pages.push(page);
    return page;
  }

  watch(page) {
    const note = (what) => this.troubles.push(`${page.url()}: ${what}`);
    page.on("pageerror", (error) => note(`script error: ${error.message}`));
    page.on("dialog", (dialog) => {
      note(`a dialog of the browser's own: ${dialog.message()}`);
      return dialog.dismiss();
    });
    page.on("console", (message) => {
      if (message.type() !== "error") return;
      const text = message.text();
      const status = /the server responded with a status of (\d+)/.exec(text)?.[1];
      if (status && page.expected.has(Number(status))) return;
      if (page.expected.has("gone") && /ERR_|Failed to fetch|htmx:error/.test(text)) return;
      if (/htmx:error.*Failed to fetch/.test(text)) unanswered += 1;
      else note(`console: ${text} (${message.location().url})`);
    });
    // What a page asked for while it was left is cut off by the browser: that is no fault, the rest is.
    let unanswered = 0;
    page.on("requestfailed", (request) => {
      if (request.failure()?.errorText === "net::ERR_ABORTED") unanswered -= 1;
    });
    this.checks.push(() => {
      if (unanswered > 0) note(`${unanswered} requests of the page failed`);
    });
    page.on("request", (request) => {
      const url = request.url();
      const own = url.startsWith(this.origin) || url.startsWith("data:") || url.startsWith("blob:");
      if (!own && !page.expected.has("elsewhere")) note(`a request to elsewhere: ${url}`);
    });
  }

  /** A page that is signed in. */
  async signIn(options = {}, key = this.key) {
    const page = await this.open(options);
    await page.goto("sign-in");
    await page.getByLabel("API key").fill(key);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("button", { name: "Sign out" }).waitFor();
    return page;
  }

  async api(method, path, body) {
    const answer = await fetch(`${this.origin}${path}`, {
      method,
      headers: { authorization: `Bearer ${this.key}`, "content-type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(DEADLINE_MILLIS),
    });
    const text = await answer.text();
    assert.ok(answer.ok, `${method} ${path}: ${answer.status} ${text}`);
    return text === "" ? undefined : JSON.parse(text);
  }

  /** Asks for something again and again until it is so. Each question is a request to the server. */
  async until(what, question) {
    const deadline = AbortSignal.timeout(DEADLINE_MILLIS);
    for (;;) {
      const found = await question();
      if (found) return found;
      assert.ok(!deadline.aborted, `${what}: not within ${DEADLINE_MILLIS} ms`);
    }
  }

  /** What the test does outside the browser: `stop` and `start` the server. */
  async ask(what) {
    process.stdout.write(`${JSON.stringify({ ask: what })}\n`);
    const { value } = await this.answers.next();
    assert.equal(value, "done");
  }

  /** Fails if axe finds anything, or if the page is wider than its window. */
  async examine(page, name) {
    if (!(await page.evaluate(() => "axe" in globalThis))) await page.evaluate(AXE);
    const found = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
    for (const violation of found.violations) {
      for (const node of violation.nodes.slice(0, 5)) {
        this.troubles.push(`${name}: axe ${violation.id}: ${node.failureSummary} ${node.html.slice(0, 200)}`);
      }
    }
    const [wide, window] = await page.evaluate(() => [
      document.documentElement.scrollWidth,
      document.documentElement.clientWidth,
    ]);
    if (wide > window) {
      const who = await page.evaluate((edge) => {
        const over = [...document.querySelectorAll("body *")].filter((e) => e.getBoundingClientRect().right > edge + 1);
        return over.slice(-3).map((e) => e.outerHTML.slice(0, 120));
      }, window);
      this.troubles.push(`${name}: ${wide} px in a window of ${window} px: ${who.join(" | ")}`);
    }
  }

  /** Takes a picture of the whole page. */
  async picture(page, name, options = {}) {
    mkdirSync(given.pictures, { recursive: true });
    await page.screenshot({ path: join(given.pictures, `${name}.png`), fullPage: true, ...options });
  }

  /** Takes the picture of a page that stands in the README: what a window shows, in one theme. */
  async readme(page, { name, readme }) {
    await page.emulateMedia({ colorScheme: "light" });
    await page.setViewportSize({ width: 1100, height: readme });
    await page.evaluate(() => scrollTo(0, 0));
    await this.picture(page, `readme-${name}`, { fullPage: false });
  }

  judge() {
    for (const check of this.checks) check();
    assert.deepEqual(this.troubles, []);
  }

  async describe() {
    for (const [number, page] of this.pages.entries()) {
      if (page.isClosed()) continue;
      const text = await page.locator("body").innerText({ timeout: 2_000 }).catch(() => "(nothing)");
      console.error(`page ${number + 1} was at ${page.url()}:\n${text}\n`);
    }
    for (const trouble of this.troubles) console.error(trouble);
  }

  /**
   * A receiver on loopback. It accepts what one of the secrets that it holds signed (anything, if it
   * holds none), or answers what `answer` says.
   */
  async receiver({ held = [], answer } = {}) {
    const receiver = { held, answer, requests: [] };
    const server = createServer(async (request, response) => {
      const chunks = [];
      for await (const chunk of request) chunks.push(chunk);
      const body = Buffer.concat(chunks).toString("utf8");
      receiver.requests.push({ headers: request.headers, body });
      const [status, text, headers] = receiver.answer?.(request, body) ?? [accepts(receiver.held, request, body) ? 204 : 401, ""];
      response.writeHead(status, headers).end(text);
    });
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
    server.unref();
    receiver.url = `http://127.0.0.1:${server.address().port}/webhooks`;
    // The same under a name, as people would read it.
    receiver.called = (name) => `http://${name}.localhost:${server.address().port}/webhooks`;
    return receiver;
  }
}

function accepts(held, request, body) {
  if (held.length === 0) return true;
  return held.some((secret) => {
    try {
      new Webhook(secret).verify(body, request.headers);
      return true;
    } catch {
      return false;
    }
  });
}

/** The main heading must be this. */
export async function heading(page, name) {
  await page.getByRole("heading", { level: 1, name }).waitFor();
}
