"""Judges captured webhook requests with the Python libraries that their receivers use.

The contract (environment, input, output, exit codes) is written at the top of verify.mjs; this
script keeps the same one: `"$HOOKTURN_JUDGE_PYTHON" tests/judges/verify.py`. The names of the judges
say which language they are from: "standardwebhooks-python@1.1.0".
"""

import base64
import hashlib
import hmac
import json
import platform
import sys
import time
from importlib.metadata import version
from typing import Any, Callable

import gidgethub
import gidgethub.sansio
import openai
import standardwebhooks
import stripe
import svix
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

TOLERANCE_SECONDS = 300

Request = dict[str, Any]
# A judge returns if it accepts and raises if not; beside it, the errors by which it says no.
Judge = tuple[str, Callable[[Request], object], tuple[type[Exception], ...]]

CLIENT = openai.OpenAI(api_key="unused")


class Refused(Exception):
    """The signature was refused by code of this file."""


def header(request: Request, name: str) -> str:
    if name not in request["headers"]:
        raise Refused(f"the header {name} is missing")
    return request["headers"][name]


def by_standardwebhooks(request: Request) -> object:
    return standardwebhooks.Webhook(request["secret"]).verify(request["body"], request["headers"])


def by_svix(request: Request) -> object:
    return svix.Webhook(request["secret"]).verify(request["body"], request["headers"])


def by_openai(request: Request) -> object:
    return CLIENT.webhooks.verify_signature(
        request["body"], request["headers"], secret=request["secret"]
    )


def by_stripe(request: Request) -> object:
    # The Hopae header has the form of Stripe's, keyed with the whole text of the secret.
    return stripe.WebhookSignature.verify_header(
        request["body"],
        header(request, "x-hopae-signature"),
        request["secret"],
        TOLERANCE_SECONDS,
    )


def by_gidgethub(request: Request) -> object:
    return gidgethub.sansio.validate_event(
        request["body"],
        signature=header(request, "x-hub-signature-256"),
        secret=request["secret"],
    )


def by_cryptography(request: Request) -> None:
    """Standard Webhooks v1a, which no published library verifies."""
    identifier = header(request, "webhook-id")
    timestamp = header(request, "webhook-timestamp")
    if abs(time.time() - int(timestamp)) > TOLERANCE_SECONDS:
        raise Refused("the timestamp is outside the tolerance")
    raw = base64.b64decode(request["publicKey"].removeprefix("whpk_"), validate=True)
    key = Ed25519PublicKey.from_public_bytes(raw)
    signed = f"{identifier}.{timestamp}.".encode() + request["body"]
    for token in header(request, "webhook-signature").split(" "):
        kind, _, signature = token.partition(",")
        if kind != "v1a":
            continue
        try:
            key.verify(base64.b64decode(signature, validate=True), signed)
            return
        except InvalidSignature:
            continue
    raise Refused("no v1a signature matches")


def by_hashlib(request: Request) -> None:
    """KORE's plain digest, as its page on validating signatures describes it; it has no library."""
    given = header(request, "kore-signature")
    address = request["url"].partition("?")[0].partition("#")[0]
    digest = hashlib.sha256()
    for part in (request["secret"], request["method"], address):
        digest.update(part.encode())
    digest.update(request["body"])
    if not hmac.compare_digest(given.encode(), digest.hexdigest().encode()):
        raise Refused("the digest does not match")


def installed(name: str) -> str:
    return f"{name}-python@{version(name)}"


JUDGES: dict[str, list[Judge]] = {
    "standard": [
        (
            installed("standardwebhooks"),
            by_standardwebhooks,
            (standardwebhooks.WebhookVerificationError,),
        ),
        (installed("svix"), by_svix, (svix.WebhookVerificationError,)),
        (installed("openai"), by_openai, (openai.InvalidWebhookSignatureError,)),
    ],
    "standard-v1a": [(installed("cryptography"), by_cryptography, (Refused,))],
    "hopae": [(installed("stripe"), by_stripe, (stripe.SignatureVerificationError, Refused))],
    "github": [(installed("gidgethub"), by_gidgethub, (gidgethub.ValidationFailure, Refused))],
    "kore": [(f"hashlib-python@{platform.python_version()}", by_hashlib, (Refused,))],
}


def parse(line: str) -> Request:
    request = json.loads(line)
    if request["scheme"] not in JUDGES:
        raise ValueError(f"there is no judge for the scheme {request['scheme']}")
    request["headers"] = {name.lower(): value for name, value in request["headers"].items()}
    request["body"] = base64.b64decode(request["bodyBase64"], validate=True)
    return request


def verdict_of(judge: Judge, request: Request) -> dict[str, str]:
    _, verify, refusals = judge
    try:
        verify(request)
    except Exception as error:  # every other failure is a verdict too: "error"
        refused = isinstance(error, refusals)
        detail = f"{type(error).__name__}: {error}"
        return {"verdict": "reject" if refused else "error", "detail": detail}
    return {"verdict": "accept", "detail": ""}


def main() -> int:
    code = 0
    for number, line in enumerate(sys.stdin, start=1):
        if not line.strip():
            continue
        try:
            request = parse(line)
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            print(f"line {number} is not a captured request: {error!r}", file=sys.stderr)
            return 2
        for judge in JUDGES[request["scheme"]]:
            verdict = verdict_of(judge, request)
            print(json.dumps({"request": number, "judge": judge[0], **verdict}), flush=True)
            if request.get("expect", verdict["verdict"]) != verdict["verdict"]:
                code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
