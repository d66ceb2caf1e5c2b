// Data that flows share, made through the API: what stands in a workspace that is in use.
import assert from "node:assert/strict";

/** A policy whose times are those of a test. */
export const policy = {
  confidencePercent: 80,
  stalePercent: 20,
  holdDownMillis: 200,
  probeEveryMillis: 5,
  probeBackOffMaxMillis: 100,
  probesPerHour: 100_000,
  quietMillis: 300,
  deadlineMillis: 600_000,
};

/** The same as somebody types it into the dialog. */
export const quick = [
  ["Confidence, in percent", "80"],
  ["Share of a fleet", "20"],
  ["Time between two probes", "5 ms"],
  ["Probes of one endpoint", "100000"],
  ["Time without a refusal", "200 ms"],
  ["Time for which the old secret", "300 ms"],
  ["The old secret retires at the latest", "10 min"],
];

/** Waits until nothing of an app is pending. */
export async function settled(t, app) {
  await t.until("every delivery is settled", async () => {
    const found = await t.api("GET", `/v1/apps/${app}/deliveries?status=pending&limit=1`);
    return found.data.length === 0;
  });
}

/** Has an endpoint accept a delivery, so that it may be probed. */
export async function accepted(t, app, endpoint) {
  await t.api("POST", `/v1/apps/${app}/messages`, { eventType: "warm.up", payload: {} });
  await t.until("a delivery is accepted", async () => {
    const found = await t.api("GET", `/v1/apps/${app}/deliveries?status=delivered&endpointId=${endpoint}&limit=1`);
    return found.data.length > 0;
  });
}

const ORDER = { orderId: "ord_8fj2k1", total: { amount: 12990, currency: "KRW" }, items: [{ sku: "tea-01", quantity: 2 }] };

/** As much as a page can show of a rotation: probes back off, so that it stands still when it is looked at. */
const calm = { ...policy, confidencePercent: 95, stalePercent: 5, probeBackOffMaxMillis: 600_000 };

/** Three endpoints of one keyring in the middle of a rotation: one is ready, one is not, one is down. */
async function rotateShared(t, app) {
  const workspaces = await t.api("GET", "/v1/workspaces");
  const keyring = workspaces.data[0].sharedKeyringId;
  const first = await t.api("POST", `/v1/keyrings/${keyring}/secrets`, { name: "spring" });
  const places = [];
  for (const [name, description] of [["ledger", "Ledger"], ["mobile", "Mobile app"], ["reports", "Reports"]]) {
    const receiver = await t.receiver({ held: [first.secret?.value ?? first.value] });
    const fields = { url: receiver.called(`${name}.northwind`), description, keyring: "workspace", retry: { delaysMillis: [3_600_000] } };
    const endpoint = await t.api("POST", `/v1/apps/${app}/endpoints`, fields);
    places.push({ receiver, endpoint });
  }
  for (const { endpoint } of places) await accepted(t, app, endpoint.id);
  await settled(t, app);
  places[2].receiver.answer = () => [503, "down"];
  const opened = await t.api("POST", `/v1/keyrings/${keyring}/rotations`, { mode: "proven", name: "autumn", policy: calm, reason: "yearly rotation" });
  places[0].receiver.held.push(opened.secret.value);
  await t.until("every receiver was asked", async () => {
    const { endpoints } = await t.api("GET", `/v1/rotations/${opened.id}`);
    const standings = endpoints.map((endpoint) => endpoint.standing).sort();
    return standings.join(" ") === "not_ready proved unreachable";
  });
  return { keyring, rotation: opened.id };
}

/** An app with keyrings of its own of which a bulk rotation waits for its second wave; one cannot be rotated. */
async function rotateMany(t) {
  const app = await t.api("POST", "/v1/apps", { name: "Lakeside Tickets", labels: { tier: "silver" } });
  const receiver = await t.receiver();
  const keyrings = [];
  for (const name of ["tickets", "refunds", "seats", "venues", "partners", "print"]) {
    const fields = { url: receiver.called(`${name}.lakeside`), events: [`${name}.*`] };
    const made = await t.api("POST", `/v1/apps/${app.clientId}/endpoints`, fields);
    keyrings.push(made.keyringId);
    if (name === "refunds") await t.api("POST", `/v1/keyrings/${made.keyringId}/rotations`, { mode: "staged" });
  }
  const start = { mode: "overlap", overlapSeconds: 86_400, stopAtFailedPercent: 100 };
  const all = { selector: { apps: [app.clientId] }, waves: [50, 100], pauseSeconds: 3_600, reason: "yearly rotation" };
  const first = await t.api("POST", "/v1/bulk-rotations", { ...start, ...all });
  await counted(t, first.id, (counts) => counts.waiting === 3 && counts.running === 0);
  const one = { selector: { keyrings: keyrings.slice(-1) }, waves: [100], reason: "tried with one" };
  const over = await t.api("POST", "/v1/bulk-rotations", { ...start, ...one });
  await t.until("a bulk rotation is over", async () => {
    const found = await t.api("GET", `/v1/bulk-rotations/${over.id}`);
    return found.state === "completed";
  });
  return { tickets: app.clientId, bulk: first.id, bulkOver: over.id };
}

/** Waits until what became of a bulk rotation's keyrings is so. */
export async function counted(t, bulk, isSo) {
  return t.until("a bulk rotation is so far", async () => {
    const found = await t.api("GET", `/v1/bulk-rotations/${bulk}`);
    return isSo(found.counts) && found;
  });
}

/** Two schedules, of which one is paused. */
async function scheduleSome(t, app) {
  const berlin = { timeZone: "Europe/Berlin", jitterSeconds: 3_600 };
  const schedule = await t.api("POST", "/v1/schedules", {
    name: "Every quarter, never over a weekend",
    calendar: { everyMonths: 3, dayOfMonth: 1, time: "04:00" },
    weeklyBlackouts: [{ fromDay: "friday", fromTime: "18:00", untilDay: "monday", untilTime: "08:00" }],
    ...berlin,
  });
  const paused = await t.api("POST", "/v1/schedules", { name: "Acme Shop", clientId: app, everyDays: 90, paused: true });
  return { schedule: schedule.id, paused: paused.id };
}

/**
 * Three apps with endpoints of which one fails, one is paused, one is at the test inbox and three are in the
 * middle of a rotation; deliveries in every state; rotations open and over, in bulk and by schedule; keys. Answers the ids that pages need.
 */
export async function furnish(t) {
  const shop = await t.api("POST", "/v1/apps", { name: "Acme Shop", labels: { tier: "gold" } });
  const books = await t.api("POST", "/v1/apps", { name: "Northwind Books" });
  const shared = await rotateShared(t, books.clientId);

  const good = await t.receiver();
  const sorry = { "retry-after": "1", "content-type": "application/json" };
  const down = await t.receiver({ answer: () => [503, '{"error":"maintenance until noon"}', sorry] });
  const endpoint = (app, fields) => t.api("POST", `/v1/apps/${app}/endpoints`, fields);
  const orders = await endpoint(shop.clientId, { url: good.called("orders.acme"), description: "Orders", events: ["order.*"] });
  const failing = await endpoint(shop.clientId, {
    url: down.called("warehouse.acme"),
    description: "Warehouse",
    retry: { delaysMillis: [50, 3_600_000] },
    events: ["order.paid"],
  });
  await endpoint(shop.clientId, { url: down.called("old.acme"), description: "Old warehouse", retry: { delaysMillis: [] }, events: ["order.refunded"] });
  const paused = await endpoint(shop.clientId, { url: good.called("mail.acme"), description: "Mail room", preset: "github", state: "paused", events: ["mail.*"] });
  good.held.push(orders.secret.value);

  const types = ["order.paid", "order.paid", "order.refunded", "order.shipped", "order.paid"];
  const messages = types.map((eventType, number) => ({ eventType, payload: { ...ORDER, number } }));
  await t.api("POST", `/v1/apps/${shop.clientId}/messages/batch`, { messages });
  await t.until("one is given up, three wait", async () => {
    const of = async (status) => (await t.api("GET", `/v1/apps/${shop.clientId}/deliveries?status=${status}&limit=20`)).data;
    const [over, done, waiting] = [await of("exhausted"), await of("delivered"), await of("pending")];
    return over.length === 1 && done.length === 5 && waiting.length === 3;
  });

  const rotate = { mode: "overlap", overlapSeconds: 172_800, reason: "yearly rotation" };
  const over = await t.api("POST", `/v1/keyrings/${orders.keyringId}/rotations`, rotate);
  good.held.push(over.secret.value);
  await t.api("POST", `/v1/rotations/${over.id}/finish`, { reason: "the shop has the new one" });
  await t.api("POST", `/v1/keyrings/${paused.keyringId}/secrets`, { name: "autumn" });
  const key = await t.api("POST", "/v1/api-keys", { name: "nightly job", scopes: ["publish"], environment: "test" });
  const many = await rotateMany(t);
  const schedules = await scheduleSome(t, shop.clientId);
  const inbox = await endpoint(shop.clientId, { url: "http://inbox.hookturn.invalid/acme", description: "Test inbox", events: ["sample.*"] });
  await t.api("POST", `/v1/apps/${shop.clientId}/messages`, { eventType: "sample.order", payload: ORDER });
  await accepted(t, shop.clientId, inbox.id);
  const kept = await t.api("GET", `/v1/apps/${shop.clientId}/deliveries?status=exhausted&limit=1`);
  const delivered = await t.api("GET", `/v1/apps/${shop.clientId}/deliveries?status=delivered&limit=1`);
  const ring = await t.api("GET", `/v1/keyrings/${orders.keyringId}/secrets`);
  assert.ok(ring.data.length >= 2);
  return {
    apps: 3,
    ...many,
    ...schedules,
    inbox: inbox.id,
    app: shop.clientId,
    endpoint: orders.id,
    failing: failing.id,
    delivery: delivered.data[0].id,
    exhausted: kept.data[0].id,
    keyring: orders.keyringId,
    secret: ring.data[0].id,
    shared: shared.keyring,
    rotation: shared.rotation,
    over: over.id,
    apiKey: key.id,
  };
}
