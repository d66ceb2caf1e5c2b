// Judges captured webhook requests with the npm libraries that their receivers use.
//
// Contract, the same for verify.mjs and verify.py:
// - `cargo xtask test` installs the libraries and sets HOOKTURN_JUDGE_NODE to the directory that
//   holds this script beside its node_modules, and HOOKTURN_JUDGE_PYTHON to the interpreter that has
//   the Python libraries. To judge: `node "$HOOKTURN_JUDGE_NODE/verify.mjs"` and
//   `"$HOOKTURN_JUDGE_PYTHON" tests/judges/verify.py`.
// - Standard input: one JSON object a line, a captured request:
//   {"scheme": "standard" | "standard-v1a" | "hopae" | "github" | "kore",
//    "secret": "whsec_…", "publicKey": "whpk_…" (standard-v1a only),
//    "method": "POST", "url": "…" (as it was configured), "headers": {"name": "value"}, "bodyBase64": "…",
//    "expect": "accept" | "reject" (optional)}
// - Standard output: for each request one JSON object a line for every library that knows the scheme:
//   {"request": 1, "judge": "svix-npm@2.5.0", "verdict": "accept" | "reject" | "error", "detail": "…"}
//   `request` is the number of the input line; `error` means that the library failed in a way it
//   does not document, which a receiver answers with 500.
// - Exit code: 0, or 1 if a verdict differs from `expect`, or 2 if a line was not understood.
// - The libraries read the system's clock and allow five minutes: judge a request while it is fresh.

import {
  createHash,
  createPublicKey,
  timingSafeEqual,
  verify as verifyBytes,
  webcrypto,
} from "node:crypto";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

import { verify as verifyGithub } from "@octokit/webhooks-methods";
import OpenAI from "openai";
import { Webhook as StandardWebhook, WebhookVerificationError } from "standardwebhooks";
import Stripe from "stripe";
import { Webhook as SvixWebhook, WebhookVerificationError as SvixError } from "svix";

// Node 18, which Debian 12 has, keeps Web Crypto out of the global scope; openai expects it there.
globalThis.crypto ??= webcrypto;

const TOLERANCE_SECONDS = 300;
// What stands before the 32 bytes of an Ed25519 public key in its DER form (RFC 8410).
const ED25519_SPKI_PREFIX = Buffer.from("302a300506032b6570032100", "hex");

const openai = new OpenAI({ apiKey: "unused" });
const stripe = new Stripe("unused");

/** The signature was refused by code of this file. */
class Refused extends Error {}

// A judge returns if it accepts and throws if not; `refusals` are the errors by which it says no.
const JUDGES = {
  standard: [
    {
      name: installed("standardwebhooks"),
      refusals: [WebhookVerificationError],
      judge: (r) => new StandardWebhook(r.secret).verify(r.body, r.headers),
    },
    {
      name: installed("svix"),
      refusals: [SvixError],
      judge: (r) => new SvixWebhook(r.secret).verify(r.body, r.headers),
    },
    {
      name: installed("openai"),
      refusals: [OpenAI.InvalidWebhookSignatureError],
      judge: (r) => openai.webhooks.verifySignature(r.body, r.headers, r.secret),
    },
  ],
  "standard-v1a": [
    {
      name: `node:crypto@${process.versions.node}`,
      refusals: [Refused],
      judge: verifyEd25519,
    },
  ],
  // The Hopae header has the form of Stripe's, keyed with the whole text of the secret.
  hopae: [
    {
      name: installed("stripe"),
      refusals: [Stripe.errors.StripeSignatureVerificationError, Refused],
      judge: (r) =>
        stripe.webhooks.signature.verifyHeader(
          r.body,
          header(r, "x-hopae-signature"),
          r.secret,
          TOLERANCE_SECONDS,
        ),
    },
  ],
  github: [
    {
      name: installed("@octokit/webhooks-methods"),
      refusals: [Refused],
      judge: async (r) => {
        if (!(await verifyGithub(r.secret, r.body, header(r, "x-hub-signature-256")))) {
          throw new Refused("the signature does not match");
        }
      },
    },
  ],
  kore: [
    {
      name: `node:crypto@${process.versions.node}`,
      refusals: [Refused],
      judge: verifyKore,
    },
  ],
};

function installed(name) {
  const manifest = new URL(`node_modules/${name}/package.json`, import.meta.url);
  return `${name}-npm@${JSON.parse(readFileSync(manifest, "utf8")).version}`;
}

function header(request, name) {
  const value = request.headers[name];
  if (value === undefined) throw new Refused(`the header ${name} is missing`);
  return value;
}

/** Standard Webhooks v1a, which no published library verifies. */
function verifyEd25519(request) {
  const id = header(request, "webhook-id");
  const timestamp = header(request, "webhook-timestamp");
  if (Math.abs(Date.now() / 1000 - Number(timestamp)) > TOLERANCE_SECONDS) {
    throw new Refused("the timestamp is outside the tolerance");
  }
  const raw = Buffer.from(request.publicKey.replace(/^whpk_/, ""), "base64");
  const key = createPublicKey({
    key: Buffer.concat([ED25519_SPKI_PREFIX, raw]),
    format: "der",
    type: "spki",
  });
  const signed = Buffer.from(`${id}.${timestamp}.${request.body}`, "utf8");
  const matches = header(request, "webhook-signature")
    .split(" ")
    .filter((token) => token.startsWith("v1a,"))
    .some((token) => verifyBytes(null, signed, key, Buffer.from(token.slice(4), "base64")));
  if (!matches) throw new Refused("no v1a signature matches");
}

/** KORE's plain digest, as its page on validating signatures describes it; it has no library. */
function verifyKore(request) {
  const given = Buffer.from(header(request, "kore-signature"), "latin1");
  const address = request.url.replace(/[?#].*$/s, "");
  const digest = createHash("sha256")
    .update(request.secret + request.method + address + request.body, "utf8")
    .digest("hex");
  const wanted = Buffer.from(digest, "latin1");
  if (given.length !== wanted.length || !timingSafeEqual(given, wanted)) {
    throw new Refused("the digest does not match");
  }
}

function parse(line) {
  const request = JSON.parse(line);
  if (!Object.hasOwn(JUDGES, request.scheme)) {
    throw new TypeError(`there is no judge for the scheme ${request.scheme}`);
  }
  const headers = Object.entries(request.headers).map(([name, value]) => [
    name.toLowerCase(),
    value,
  ]);
  return {
    ...request,
    headers: Object.fromEntries(headers),
    body: Buffer.from(request.bodyBase64, "base64").toString("utf8"),
  };
}

async function verdictOf({ judge, refusals }, request) {
  try {
    await judge(request);
    return { verdict: "accept", detail: "" };
  } catch (error) {
    const refused = refusals.some((kind) => error instanceof kind);
    const detail = `${error?.constructor?.name}: ${error?.message}`;
    return { verdict: refused ? "reject" : "error", detail };
  }
}

let number = 0;
for await (const line of createInterface({ input: process.stdin })) {
  number += 1;
  if (line.trim() === "") continue;
  let request;
  try {
    request = parse(line);
  } catch (error) {
    console.error(`line ${number} is not a captured request: ${error.message}`);
    process.exit(2);
  }
  for (const entry of JUDGES[request.scheme]) {
    const { verdict, detail } = await verdictOf(entry, request);
    console.log(JSON.stringify({ request: number, judge: entry.name, verdict, detail }));
    if (request.expect !== undefined && request.expect !== verdict) process.exitCode = 1;
  }
}
