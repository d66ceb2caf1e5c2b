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

/**
 * Two apps, four endpoints of which one fails, one is paused and one waits for its new secret; deliveries
 * in every state; rotations open and over; keys. Answers the ids that pages need.
 */
export async function furnish(t) {
  const shop = await t.api("POST", "/v1/apps", { name: "Acme Shop", labels: { tier: "gold" } });
  const books = await t.api("POST", "/v1/apps", { name: "Northwind Books" });
  const good = await t.receiver();
  const down = await t.receiver({ answer: () => [503, '{"error":"maintenance until noon"}', { "retry-after": "1", "content-type": "application/json" }] });
  const late = await t.receiver();
  const endpoint = (app, fields) => t.api("POST", `/v1/apps/${app}/endpoints`, fields);
  const orders = await endpoint(shop.clientId, { url: good.url, description: "Orders, production", events: ["order.*"] });
  const failing = await endpoint(shop.clientId, { url: down.url, description: "Warehouse", retry: { delaysMillis: [50, 3_600_000] }, events: ["order.paid"] });
  const given = await endpoint(shop.clientId, { url: down.url, description: "Old warehouse", retry: { delaysMillis: [] }, events: ["order.refunded"] });
  const moving = await endpoint(books.clientId, { url: late.url, description: "Ledger" });
  const paused = await endpoint(books.clientId, { url: good.url, description: "Mail room", preset: "github", state: "paused" });
  good.held.push(orders.secret.value, paused.secret.value);
  late.held.push(moving.secret.value);

  await accepted(t, books.clientId, moving.id);
  const messages = ["order.paid", "order.paid", "order.refunded", "order.shipped", "order.paid"].map((eventType, number) => ({ eventType, payload: { ...ORDER, number } }));
  await t.api("POST", `/v1/apps/${shop.clientId}/messages/batch`, { messages });
  await t.until("one is given up, and others wait", async () => {
    const of = async (status) => (await t.api("GET", `/v1/apps/${shop.clientId}/deliveries?status=${status}&limit=20`)).data;
    const [over, done, waiting] = [await of("exhausted"), await of("delivered"), await of("pending")];
    return over.length === 1 && done.length === 5 && waiting.length === 3 && waiting.every((delivery) => delivery.attempts?.length !== 0);
  });

  const rotate = (keyring, body) => t.api("POST", `/v1/keyrings/${keyring}/rotations`, body);
  const overlap = await rotate(orders.keyringId, { mode: "overlap", overlapSeconds: 172_800, reason: "yearly rotation" });
  good.held.push(overlap.secret.value);
  await t.api("POST", `/v1/rotations/${overlap.id}/finish`, { reason: "the shop has the new one" });
  const proven = await rotate(moving.keyringId, { mode: "proven", policy: { ...policy, stalePercent: 5, confidencePercent: 95 }, reason: "yearly rotation" });
  await t.until("the receiver was asked", async () => {
    const rotation = await t.api("GET", `/v1/rotations/${proven.id}`);
    return rotation.endpoints[0]?.standing === "not_ready";
  });
  await t.api("POST", `/v1/keyrings/${paused.keyringId}/secrets`, { name: "autumn" });
  const key = await t.api("POST", "/v1/api-keys", { name: "nightly job", scopes: ["publish"], environment: "test" });
  const kept = await t.api("GET", `/v1/apps/${shop.clientId}/deliveries?status=exhausted&limit=1`);
  const delivered = await t.api("GET", `/v1/apps/${shop.clientId}/deliveries?status=delivered&limit=1`);
  const ring = await t.api("GET", `/v1/keyrings/${orders.keyringId}/secrets`);
  assert.ok(ring.data.length >= 2);
  return {
    apps: 2,
    app: shop.clientId,
    endpoint: orders.id,
    failing: failing.id,
    given: given.id,
    delivery: delivered.data[0].id,
    exhausted: kept.data[0].id,
    keyring: orders.keyringId,
    secret: ring.data[0].id,
    rotation: proven.id,
    over: overlap.id,
    apiKey: key.id,
  };
}
