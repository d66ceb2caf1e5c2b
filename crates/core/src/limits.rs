//! Every bound of the product, with its unit and its reason. Nothing is unlimited.

use crate::proof::Latest;
use crate::time::{DAY, HOUR, MINUTE, Millis, SECOND};

/// Largest payload of one message, in bytes: 256 KiB, what receivers commonly accept.
pub const PAYLOAD_BYTES: usize = 256 * 1024;
/// How deep arrays and objects of a body may nest that every common parser reads in its default
/// settings: .NET's System.Text.Json stops at 64, Ruby's json at 100, PHP's at 512, Jackson at 1,000.
pub const BODY_DEPTH: usize = 64;
/// How deep those of a payload may nest: a preset may put two around it, an array and an envelope.
pub const PAYLOAD_DEPTH: usize = BODY_DEPTH - 2;
/// Messages in one batch request.
pub const BATCH_MESSAGES: usize = 1_000;
/// Largest batch request body, in bytes.
pub const BATCH_BODY_BYTES: usize = 8 * 1024 * 1024;
/// Largest body of a request that is not a batch: a payload and room for the fields around it.
pub const BODY_BYTES: usize = PAYLOAD_BYTES + 16 * 1024;
/// Request bodies under way that are not small, together, in bytes: eight of the largest batches.
pub const BODIES_BYTES: usize = 8 * BATCH_BODY_BYTES;
/// Longest event type, in bytes.
pub const EVENT_TYPE_BYTES: usize = 128;
/// Longest event id given by a publisher, in characters.
pub const EVENT_ID_CHARS: usize = 128;
/// Longest name, description or reason, in characters, as the API's description counts them.
pub const TEXT_CHARS: usize = 256;
/// Longest URL of an endpoint, in bytes.
pub const URL_BYTES: usize = 2_048;
/// Longest `Idempotency-Key`, in characters: Hopae documents 255.
pub const IDEMPOTENCY_KEY_CHARS: usize = 255;
/// How long an idempotent answer is kept: Hopae documents 24 hours.
pub const IDEMPOTENCY_MILLIS: Millis = 24 * HOUR;

/// How long a node that shares a database may be silent before the others take over what it has, unless
/// configured: longer than a restart of the database and a pause of a machine, shorter than anybody waits.
pub const LEASE_DEFAULT: Millis = 10 * SECOND;
/// The shortest that may be configured: a node is believed for two seconds after it looked.
pub const LEASE_MIN: Millis = 3 * SECOND;
/// The longest.
pub const LEASE_MAX: Millis = 5 * MINUTE;

/// Requests that go on after their client left. Each holds a body of at most [`BATCH_BODY_BYTES`] and
/// most hold nearly nothing; a client that waits for its answers never needs one.
pub const LEFT_REQUESTS: usize = 256;
/// Requests one API key may make per second unless configured: several times what one node answers,
/// so that it only stops what has gone wild.
pub const REQUESTS_PER_SECOND: u32 = 100_000;
/// Requests one API key may make at once after a rest, unless configured.
pub const REQUEST_BURST: u32 = 100_000;
/// The most of either that may be configured: more is no limit any more, and is written as none.
pub const REQUESTS_MAX: u32 = 1_000_000;

/// Labels of one app.
pub const LABELS: usize = 20;
/// Endpoints of one app.
pub const ENDPOINTS_PER_APP: usize = 50;
/// Event types (or `prefix.*` patterns) one endpoint may list.
pub const EVENT_TYPES_PER_ENDPOINT: usize = 200;
/// Custom headers of one endpoint.
pub const CUSTOM_HEADERS: usize = 20;
/// Name and value of one custom header together, in bytes.
pub const CUSTOM_HEADER_BYTES: usize = 4 * 1024;
/// All custom headers of one endpoint together, in bytes.
pub const CUSTOM_HEADERS_BYTES: usize = 8 * 1024;

/// Events of one request of an event stream: what KORE documents.
pub const STREAM_EVENTS: usize = 50;
/// Body of one request of an event stream, in bytes: two of the largest events. Fifty of the usual
/// size are far below it, receivers commonly take twice as much, and an endpoint with 32 requests
/// under way holds 16 MiB of them.
pub const STREAM_BODY_BYTES: usize = 2 * (PAYLOAD_BYTES + STREAM_ENVELOPE_BYTES);
/// What an event of a stream adds to its payload at most, in bytes: the members of its envelope, and
/// an event id of which every character takes four.
pub const STREAM_ENVELOPE_BYTES: usize = 256 + EVENT_TYPE_BYTES + 4 * EVENT_ID_CHARS;
/// Longest path and query of a callback by GET, in bytes: what common servers take as the first line
/// of a request.
pub const GET_TARGET_BYTES: usize = 8 * 1024 - 64;

/// Response body kept of one exchange, in bytes; the rest is not read.
pub const RESPONSE_BODY_BYTES: usize = 16 * 1024;
/// Response headers kept of one exchange; the rest is left out.
pub const RESPONSE_HEADERS: usize = 64;
/// Memory one attempt may take for the receiver's answer, in bytes.
pub const ATTEMPT_BYTES: usize = 64 * 1024;

/// Shortest and longest time one exchange may take, over DNS, connect, TLS, headers and body.
pub const TIMEOUT_MIN: Millis = SECOND;
/// See [`TIMEOUT_MIN`].
pub const TIMEOUT_MAX: Millis = 60 * SECOND;
/// Retries of one delivery.
pub const RETRIES: usize = 30;
/// Longest delay between two attempts.
pub const RETRY_DELAY_MAX: Millis = 3 * DAY;
/// Longest `Retry-After` that is obeyed; a longer one is cut to this.
pub const RETRY_AFTER_MAX: Millis = DAY;
/// Concurrent exchanges one endpoint may be allowed.
pub const IN_FLIGHT_PER_ENDPOINT: u32 = 1_000;
/// The same unless it is configured: a receiver that switches in one moment refuses those under way.
pub const IN_FLIGHT_DEFAULT: u32 = 24;
/// Requests that a receiver which verifies one signature may refuse in a rotation, by the default of
/// [`IN_FLIGHT_DEFAULT`]: those under way when it switches, and the answers that it takes to see that it did.
pub const REFUSED_BY_SWITCH: u32 = 30;

/// Secrets a keyring remembers, destroyed ones included; the oldest destroyed is forgotten first.
pub const SECRETS_PER_KEYRING: usize = 50;
/// Longest text of an imported secret, in characters.
pub const SECRET_CHARS: usize = 512;
/// Longest overlap of a rotation: 30 days.
pub const OVERLAP_MAX: Millis = 30 * DAY;
/// Shortest time by which a proven rotation moves the end of a secret that is still needed. Half of it is what the
/// sweep has for moving it in time.
pub const EXTEND_MIN: Millis = SECOND;
/// Shortest default overlap; the retry horizon counts when it is longer.
pub const OVERLAP_DEFAULT_MIN: Millis = DAY;
/// Added to the default overlap, for people.
pub const OVERLAP_GRACE: Millis = DAY;

/// Schedules of one workspace.
pub const SCHEDULES_PER_WORKSPACE: usize = 100;
/// Longest time between two rotations that a schedule may ask for, in days: ten years.
pub const SCHEDULE_DAYS_MAX: u16 = 3_650;
/// Longest jitter of a schedule, in seconds: a week, so that it never reaches the next opening of a
/// schedule by the calendar.
pub const JITTER_SECONDS_MAX: u32 = 7 * 24 * 3_600;
/// Weekly blackouts of one schedule, and as many ranges of dates.
pub const BLACKOUTS: usize = 50;
/// Openings that a preview shows.
pub const PREVIEW_OPENINGS: usize = 5;
/// Rotations that schedules open in one look at them, so that many that are due at once do not hold
/// up the sweep; the others follow with the next look.
pub const OPENINGS_AT_ONCE: usize = 100;

/// Shortest text of an API key that an operator chose, in characters, without what keys begin with: a plain hash protects
/// only what cannot be guessed.
pub const API_KEY_CHARS_MIN: usize = 16;

/// Hashes that one leak search may ask for.
pub const LEAK_HASHES: usize = 200;
/// Leak searches one API key may make per second in the long run.
pub const LEAK_SEARCHES_PER_SECOND: u32 = 1;
/// Leak searches one API key may make at once after a rest: 20,000 strings, a large log.
pub const LEAK_SEARCH_BURST: u32 = 100;

/// Keyrings of one bulk rotation.
pub const BULK_KEYRINGS: usize = 100_000;
/// Bulk rotations of one workspace that are not over.
pub const BULKS_OPEN: usize = 8;
/// Rotations of one bulk rotation that may be under way at once.
pub const BULK_CONCURRENCY: u32 = 1_000;
/// Waves of one bulk rotation.
pub const BULK_WAVES: usize = 20;
/// Apps, keyrings, fingerprints or hashes that one selector may name, of each.
pub const SELECTOR_NAMES: usize = 1_000;
/// Longest pause between two waves, and longest patience with a rotation that is not proved.
pub const BULK_WAIT_MAX: Millis = 30 * DAY;

/// Items on one page of a list.
pub const PAGE_MAX: usize = 200;
/// Items on one page when none is asked for.
pub const PAGE_DEFAULT: usize = 50;
/// How much one search for deliveries looks at, in rows: what the embedded store reads in about 50 ms.
pub const SEARCH_EFFORT: u32 = 30_000;
/// Longest text that is looked for in payloads, in bytes.
pub const SEARCH_TEXT_BYTES: usize = 256;
/// Streams of live updates that may be open at once: each asks the store every few seconds.
pub const LIVE_STREAMS: usize = 64;
/// New deliveries that a stream of live updates counts: beyond, it says "more than".
pub const LIVE_COUNT: usize = 99;
/// Deliveries that one bulk retry queues again, or counts first; whoever has more goes on after.
pub const BULK_RETRY: usize = 100_000;
/// Deliveries that can be ticked and sent again at once.
pub const TICKED: usize = PAGE_MAX;
/// Deliveries one `recover` or bulk retry may queue in one transaction.
pub const RECOVER_BLOCK: usize = 1_000;

/// How long messages and attempts are kept unless configured.
pub const RETENTION_DEFAULT: Millis = 30 * DAY;
/// Shortest retention that can be configured: what settled a moment ago must be there to be seen, and
/// to be queued again.
pub const RETENTION_MIN: Millis = DAY;
/// Longest retention that can be configured: ten years.
pub const RETENTION_MAX: Millis = 3_650 * DAY;
/// How long an endpoint may fail without one success before it is disabled, unless configured.
pub const DISABLE_AFTER_DEFAULT: Millis = 5 * DAY;
/// Shortest such time that can be configured: a deployment must not disable an endpoint.
pub const DISABLE_AFTER_MIN: Millis = HOUR;
/// Longest such time that can be configured: a year.
pub const DISABLE_AFTER_MAX: Millis = 365 * DAY;
/// Failed attempts in a row below which no endpoint is disabled for failing, however long ago the first
/// was: where little is sent, two lone failures can stand days apart with nothing between them, and
/// say nothing about those days. One message with the standard policy and the next one reach it.
pub const DISABLE_AFTER_FAILURES: u32 = 10;
/// Delivery threads that can be configured: each has its own pools and permits, and more of them than
/// a large machine has cores only take memory.
pub const SHARDS_MAX: usize = 256;
/// Time given to exchanges in flight on SIGTERM, above their own deadlines.
pub const DRAIN_MAX: Millis = TIMEOUT_MAX + 5 * SECOND;
/// How long a session of the dashboard lasts after its sign-in, unless it is configured.
pub const SESSION: Millis = 12 * HOUR;
/// The longest that can be configured: a cookie that somebody took is good no longer than that.
pub const SESSION_MAX: Millis = 30 * DAY;
/// Sign-ins with a wrong key that are answered at once, and the time after which one more is.
pub const SIGN_IN_FAILURES: u32 = 10;
/// See [`SIGN_IN_FAILURES`].
pub const SIGN_IN_FAILURE_EVERY: Millis = 2 * SECOND;
/// A key's `lastUsedAt` is at most this stale.
pub const LAST_USED_STALE: Millis = MINUTE;
/// How old the stored time of a receiver's last acceptance may be while it goes on accepting: writing it
/// down with every delivery would cost a write each. Whoever asks since when must allow for it.
pub const ACCEPTED_STALE: Millis = DAY;

/// Characters of a setting's value in an audit entry that says what changed.
pub const AUDIT_VALUE_CHARS: usize = 256;

/// Denied attempts of one API key at one route that are written into the audit log at once; of those
/// without a known key, all together at one route.
pub const DENIALS_AT_ONCE: u32 = 20;
/// After so long one more denied attempt is written: about 0.7 MB a day for a key and a route that
/// never stop.
pub const DENIAL_EVERY: Millis = MINUTE;
/// How many times the same goes for all keys and routes of one workspace together, since a key costs
/// nothing; and for everyone without a known key.
pub const DENIALS_OF_WORKSPACE: u32 = 10;
/// Keys at routes whose denied attempts are counted apart, of all workspaces together:
/// about 200 KB. What comes beyond them is counted together for each workspace.
pub const DENIALS_COUNTED: usize = 1_024;

/// Body of a probe that an owner may choose, in bytes: it is sent often and says nothing.
pub const PROBE_BODY_BYTES: usize = 4 * 1024;
/// Probes to one host in a second, whatever the number of its endpoints.
pub const PROBES_PER_HOST_SECOND: u32 = 50;
/// Probes of one endpoint that people may ask for in an hour, by rehearsals and by asking whether it still accepts
/// an old secret: as many as a rotation may send by itself unless its policy says otherwise. Each node counts
/// its own.
pub const COMMANDED_PROBES_PER_HOUR: u32 = 240;
/// How long a command waits for the hosts of its endpoints: one that is slow to answer is asked one thing at a
/// time, and may serve many of them.
pub const COMMAND_WAITS: Millis = MINUTE;
/// Endpoints of open rotations whose evidence is on `/metrics` one by one, on each node those that it sends to:
/// with 14 series each a page of less than 1 MB, and a number of series that no Prometheus notices. Beyond it
/// those whose deadline is nearest.
pub const EVIDENCE_METERED: usize = 500;
/// Probes of one endpoint that can be looked at.
pub const PROBES_SHOWN: usize = 32;
/// Endpoints whose probes can be looked at: with the bound above some 20 MB at most.
pub const PROBED_ENDPOINTS_SHOWN: usize = 4_096;

const _: () = assert!(PROBE_BODY_BYTES < PAYLOAD_BYTES);
const _: () = assert!(BODY_BYTES > PAYLOAD_BYTES);
const _: () = assert!(BATCH_BODY_BYTES > BODY_BYTES);
const _: () = assert!(GET_TARGET_BYTES > URL_BYTES);
const _: () = assert!(RESPONSE_BODY_BYTES < ATTEMPT_BYTES);
const _: () = assert!(CUSTOM_HEADER_BYTES <= CUSTOM_HEADERS_BYTES);
const _: () = assert!(OVERLAP_DEFAULT_MIN + OVERLAP_GRACE <= OVERLAP_MAX);
const _: () = assert!(TIMEOUT_MIN < TIMEOUT_MAX);
const _: () = assert!(DRAIN_MAX > TIMEOUT_MAX);
const _: () = assert!(PAGE_DEFAULT <= PAGE_MAX);
const _: () = assert!(IN_FLIGHT_DEFAULT + Latest::ANSWERS <= REFUSED_BY_SWITCH);
const _: () = assert!(RETENTION_MIN <= RETENTION_DEFAULT && RETENTION_DEFAULT <= RETENTION_MAX);
const _: () = assert!(DISABLE_AFTER_MIN <= DISABLE_AFTER_DEFAULT);
const _: () = assert!(DISABLE_AFTER_DEFAULT <= DISABLE_AFTER_MAX);
const _: () = assert!(REQUESTS_PER_SECOND <= REQUESTS_MAX && REQUEST_BURST <= REQUESTS_MAX);
