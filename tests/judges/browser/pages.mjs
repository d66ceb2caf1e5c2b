// The pages, as data: a new page is one line.
//
//   name     of the page, and of its pictures
//   path     or what makes it from the ids that `furnish` answers
//   empty    whether it is there in an empty workspace, too
//   owner    whether a key that may only read is refused
//   picture  whether pictures of it are taken
//   readme   how high its picture for docs/images is, in pixels
export const PAGES = [
  { name: "overview", path: "", empty: true, picture: true },
  { name: "apps", path: "apps", empty: true, picture: true },
  { name: "app", path: (ids) => `apps/${ids.app}`, picture: true },
  { name: "endpoint", path: (ids) => `apps/${ids.app}/endpoints/${ids.endpoint}`, picture: true },
  { name: "endpoint-failing", path: (ids) => `apps/${ids.app}/endpoints/${ids.failing}` },
  { name: "endpoint-new", path: (ids) => `apps/${ids.app}/endpoints/new`, owner: true, picture: true },
  { name: "endpoint-edit", path: (ids) => `apps/${ids.app}/endpoints/${ids.endpoint}/edit`, owner: true },
  { name: "deliveries", path: "deliveries", empty: true, picture: true, readme: 700 },
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
  { name: "error-filter", path: "deliveries?since=soon&status=lost", status: 422 },
  { name: "error-audit", path: "audit?since=tomorrow&actor=me", status: 422 },
];

export const at = (entry, ids) => (typeof entry.path === "function" ? entry.path(ids) : entry.path);
