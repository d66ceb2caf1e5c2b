// The pages, as data: a new page is one line.
//
//   name     of the page, and of its pictures
//   path     or what makes it from the ids that `furnish` answers
//   then     what is done there before it is looked at
//   empty    whether it is there in an empty workspace, too
//   owner    whether a key that may only read is refused
//   picture  whether pictures of it are taken
//   window   whether they show what the window does, not the whole page
//   readme   how high its picture for docs/images is, in pixels
export const PAGES = [
  { name: "overview", path: "", empty: true, picture: true, then: openTables },
  { name: "overview-week", path: "./?span=week", empty: true },
  { name: "palette", path: "", empty: true, picture: true, window: true, then: openPalette },
  { name: "shortcuts", path: "", empty: true, picture: true, window: true, then: openShortcuts },
  { name: "inbox", path: (ids) => `inbox/${ids.app}/${ids.inbox}`, picture: true },
  { name: "apps", path: "apps", empty: true, picture: true },
  { name: "app", path: (ids) => `apps/${ids.app}`, picture: true },
  { name: "endpoint", path: (ids) => `apps/${ids.app}/endpoints/${ids.endpoint}`, picture: true },
  { name: "endpoint-failing", path: (ids) => `apps/${ids.app}/endpoints/${ids.failing}` },
  { name: "endpoint-new", path: (ids) => `apps/${ids.app}/endpoints/new`, owner: true, picture: true },
  { name: "endpoint-edit", path: (ids) => `apps/${ids.app}/endpoints/${ids.endpoint}/edit`, owner: true },
  { name: "deliveries", path: "deliveries", empty: true, picture: true, readme: 930 },
  { name: "deliveries-none", path: "deliveries?type=nothing.like.it", empty: true },
  { name: "delivery", path: (ids) => `deliveries/${ids.delivery}`, picture: true },
  { name: "delivery-exhausted", path: (ids) => `deliveries/${ids.exhausted}`, picture: true },
  { name: "secrets", path: "secrets", empty: true, picture: true },
  { name: "keyring", path: (ids) => `keyrings/${ids.keyring}`, picture: true },
  { name: "keyring-shared", path: (ids) => `keyrings/${ids.shared}` },
  { name: "secret", path: (ids) => `keyrings/${ids.keyring}/secrets/${ids.secret}` },
  { name: "rotate", path: (ids) => `keyrings/${ids.keyring}/rotate`, owner: true, picture: true },
  { name: "leaked", path: (ids) => `keyrings/${ids.keyring}/rotate?leaked`, owner: true, picture: true },
  { name: "rotations", path: "rotations", empty: true, picture: true },
  { name: "rotation", path: (ids) => `rotations/${ids.rotation}`, picture: true, readme: 930 },
  { name: "rotation-over", path: (ids) => `rotations/${ids.over}` },
  { name: "bulks", path: "bulk-rotations", empty: true, picture: true },
  { name: "bulk", path: (ids) => `bulk-rotations/${ids.bulk}`, picture: true },
  { name: "bulk-failed", path: (ids) => `bulk-rotations/${ids.bulk}?kind=failed` },
  { name: "bulk-over", path: (ids) => `bulk-rotations/${ids.bulkOver}` },
  { name: "bulk-new", path: "bulk-rotations/new", owner: true, empty: true, picture: true },
  { name: "bulk-plan", path: "bulk-rotations/new", owner: true, picture: true, then: planBulk },
  { name: "schedules", path: "schedules", empty: true, picture: true },
  { name: "schedule", path: (ids) => `schedules/${ids.schedule}`, picture: true },
  { name: "schedule-paused", path: (ids) => `schedules/${ids.paused}` },
  { name: "schedule-new", path: "schedules/new", owner: true, empty: true, picture: true },
  { name: "schedule-edit", path: (ids) => `schedules/${ids.schedule}/edit`, owner: true },
  { name: "audit", path: "audit", empty: true, picture: true },
  { name: "api-keys", path: "api-keys", empty: true, owner: true, picture: true },
  { name: "api-key", path: (ids) => `api-keys/${ids.apiKey}`, owner: true },
  { name: "settings", path: "settings", empty: true, picture: true },
];

/** Pages that say what went wrong, with the status that they are answered with. */
export const ERRORS = [
  { name: "error-no-page", path: "no/such/page", status: 404 },
  { name: "error-no-app", path: "apps/AAAAAAAA", status: 404 },
  { name: "error-no-delivery", path: "deliveries/dlv_unknown", status: 404 },
  { name: "error-no-bulk", path: "bulk-rotations/blk_unknown", status: 404 },
  { name: "error-no-schedule", path: "schedules/sch_unknown", status: 404 },
  { name: "error-no-inbox", path: "inbox/AAAAAAAA/ep_unknown", status: 404 },
  { name: "error-filter", path: "deliveries?since=soon&status=lost", status: 422 },
  { name: "error-audit", path: "audit?since=tomorrow&actor=me", status: 422 },
];

/** Forms that refuse what was typed: what is typed, and the button. */
export const REFUSED = [
  { name: "bulk-refused", path: "bulk-rotations/new", typed: { "Of these apps": "no such app", "Rotations under way at once": "0" }, button: "Plan it, rotate nothing" },
  { name: "schedule-refused", path: "schedules/new", typed: { "Time zone": "Europe/Atlantis" }, button: "Make the schedule" },
];

async function openTables(page) {
  for (const details of await page.locator("details").all()) await details.evaluate((element) => (element.open = true));
}

async function openPalette(page) {
  await page.keyboard.press("Control+K");
  await page.getByRole("option", { name: "Schedules" }).waitFor();
}

async function openShortcuts(page) {
  await page.keyboard.press("?");
  await page.getByRole("dialog", { name: "Keyboard shortcuts" }).waitFor();
}

async function planBulk(page, ids) {
  await page.getByLabel("Of these apps").fill(ids.tickets);
  await page.getByLabel("Why, for the audit log").fill("yearly rotation");
  await page.getByRole("button", { name: "Plan it, rotate nothing" }).click();
  await page.getByRole("heading", { name: /^Plan: / }).waitFor();
  await page.getByText("The first keyrings, in order").click();
}

/** Goes to a page, and does there what its line says. */
export async function visit(page, entry, ids) {
  const answer = await page.goto(at(entry, ids));
  await entry.then?.(page, ids);
  return answer;
}

export const at = (entry, ids) => (typeof entry.path === "function" ? entry.path(ids) : entry.path);
