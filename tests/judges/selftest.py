"""Judges the judges: holds every library to the verdicts it is known for.

The requests are signed here and now with Python's own hmac (and `cryptography` for Ed25519), in
every scheme, with one signature and with two, valid and broken; for KORE, which has no library, the
signatures that KORE published count too. No code of Hookturn takes part. When
a library's new version begins to judge otherwise, this fails, and a failure of the integration tests
is not blamed on the wrong side.

The receiver always holds the *old* secret. Run by `cargo xtask test`, which sets the environment
described in verify.mjs.
"""

import base64
import hashlib
import hmac
import json
import os
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Iterable

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KORE_VECTORS = Path(__file__).parents[2] / "crates/verify/tests/vectors/kore.json"
BODY = json.dumps({"event": "judge.selftest", "text": "naïve ✓ \u2028"}, ensure_ascii=False).encode()
URL = "http://127.0.0.1/"
TOO_OLD_SECONDS = 3600
DEADLINE_SECONDS = 120

# For every scheme the judges, and whether they find the old signature among two. All of them accept
# it alone and refuse it over another body, by another key, or too old where the scheme has a time.
KNOWN = {
    "standard": {
        "openai-npm": "accept",
        "openai-python": "accept",
        "standardwebhooks-npm": "accept",
        "standardwebhooks-python": "accept",
        "svix-npm": "accept",
        "svix-python": "accept",
    },
    "standard-v1a": {"cryptography-python": "accept", "node:crypto": "accept"},
    "hopae": {"stripe-npm": "accept", "stripe-python": "accept"},
    "github": {"@octokit/webhooks-methods-npm": "reject", "gidgethub-python": "reject"},
    "kore": {"node:crypto": "reject", "hashlib-python": "reject"},
}

# Where a library stands apart from the others: Stripe's bound only the age, and OpenAI's raise an
# undocumented error where the header is missing.
KNOWN_EXCEPTIONS = {
    ("from the future", "stripe-npm"): "accept",
    ("from the future", "stripe-python"): "accept",
    ("no signature header", "openai-npm"): "error",
    ("no signature header", "openai-python"): "error",
}


def new_secret() -> str:
    return "whsec_" + secrets.token_hex(32)


def mac(key: bytes, signed: bytes) -> bytes:
    return hmac.new(key, signed, hashlib.sha256).digest()


def standard_token(secret: str, identifier: str, timestamp: int) -> str:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{identifier}.{timestamp}.".encode() + BODY
    return "v1," + base64.b64encode(mac(key, signed)).decode()


def ed25519_token(key: Ed25519PrivateKey, identifier: str, timestamp: int) -> str:
    signed = f"{identifier}.{timestamp}.".encode() + BODY
    return "v1a," + base64.b64encode(key.sign(signed)).decode()


def public_text(key: Ed25519PrivateKey) -> str:
    raw = key.public_key().public_bytes(
        serialization.Encoding.Raw, serialization.PublicFormat.Raw
    )
    return "whpk_" + base64.b64encode(raw).decode()


def standard_headers(identifier: str, timestamp: int, tokens: Iterable[str]) -> dict[str, str]:
    return {
        "Webhook-Id": identifier,
        "Webhook-Timestamp": str(timestamp),
        "Webhook-Signature": " ".join(tokens),
    }


def standard(now: int) -> Callable[..., dict[str, Any]]:
    keys = {"old": new_secret(), "new": new_secret()}
    identifier = "msg_" + secrets.token_hex(12)

    def request(signers: list[str], age: int = 0) -> dict[str, Any]:
        timestamp = now - age
        tokens = [standard_token(keys[name], identifier, timestamp) for name in signers]
        return {
            "secret": keys["old"],
            "headers": standard_headers(identifier, timestamp, tokens),
        }

    return request


def standard_v1a(now: int) -> Callable[..., dict[str, Any]]:
    keys = {"old": Ed25519PrivateKey.generate(), "new": Ed25519PrivateKey.generate()}
    identifier = "msg_" + secrets.token_hex(12)

    def request(signers: list[str], age: int = 0) -> dict[str, Any]:
        timestamp = now - age
        tokens = [ed25519_token(keys[name], identifier, timestamp) for name in signers]
        return {
            "secret": "",
            "publicKey": public_text(keys["old"]),
            "headers": standard_headers(identifier, timestamp, tokens),
        }

    return request


def hopae(now: int) -> Callable[..., dict[str, Any]]:
    keys = {"old": new_secret(), "new": new_secret()}

    def request(signers: list[str], age: int = 0) -> dict[str, Any]:
        timestamp = now - age
        signed = f"{timestamp}.".encode() + BODY
        fields = [f"t={timestamp}"]
        fields += [f"v1={mac(keys[name].encode(), signed).hex()}" for name in signers]
        return {"secret": keys["old"], "headers": {"X-Hopae-Signature": ",".join(fields)}}

    return request


def github(_now: int) -> Callable[..., dict[str, Any]]:
    keys = {"old": new_secret(), "new": new_secret()}

    def request(signers: list[str], age: int = 0) -> dict[str, Any]:
        tokens = [f"sha256={mac(keys[name].encode(), BODY).hex()}" for name in signers]
        return {"secret": keys["old"], "headers": {"X-Hub-Signature-256": ", ".join(tokens)}}

    return request


def kore(_now: int) -> Callable[..., dict[str, Any]]:
    keys = {"old": new_secret(), "new": new_secret()}

    def request(signers: list[str], age: int = 0) -> dict[str, Any]:
        signed = [f"{keys[name]}POST{URL}".encode() + BODY for name in signers]
        digests = [hashlib.sha256(part).hexdigest() for part in signed]
        return {"secret": keys["old"], "headers": {"Kore-Signature": ",".join(digests)}}

    return request


def kore_published() -> Iterable[tuple[str, dict[str, Any]]]:
    """Name and request of every vector of KORE's own page."""
    page = json.loads(KORE_VECTORS.read_text())
    for vector in page["vectors"]:
        urls = [page["url"]]
        if vector["name"] == "3":
            urls += page["same_signature_as_3_for_urls"]
        for url in urls:
            yield f"published {vector['name']} for {url}", {
                "secret": vector["secret"],
                "method": page["method"],
                "url": url,
                "headers": {"kore-signature": vector["signature"]},
                "body": vector["body"].encode(),
            }


def cases(scheme: str, make: Callable[..., dict[str, Any]]) -> Iterable[tuple[str, dict, str | None]]:
    """Name, request and verdict; no verdict where KNOWN says it per judge."""
    yield "old alone", make(["old"]), "accept"
    yield "old, new", make(["old", "new"]), None
    yield "new, old", make(["new", "old"]), None
    yield "new alone", make(["new"]), "reject"
    yield "new twice", make(["new", "new"]), "reject"
    yield "another body", {**make(["old"]), "body": BODY + b" "}, "reject"
    yield "no signature header", {**make(["old"]), "headers": {}}, "reject"
    if scheme not in ("github", "kore"):
        yield "too old", make(["old"], age=TOO_OLD_SECONDS), "reject"
        yield "from the future", make(["old"], age=-TOO_OLD_SECONDS), "reject"


def mixed(now: int) -> dict[str, Any]:
    """One list with a token of either kind, as a sender in transition writes it."""
    secret, key = new_secret(), Ed25519PrivateKey.generate()
    identifier = "msg_" + secrets.token_hex(12)
    tokens = [ed25519_token(key, identifier, now), standard_token(secret, identifier, now)]
    return {
        "secret": secret,
        "publicKey": public_text(key),
        "headers": standard_headers(identifier, now, tokens),
    }


def all_cases(now: int) -> list[tuple[str, str, dict[str, Any], str | None]]:
    makers = {
        "standard": standard,
        "standard-v1a": standard_v1a,
        "hopae": hopae,
        "github": github,
        "kore": kore,
    }
    listed = [
        (scheme, name, request, verdict)
        for scheme, maker in makers.items()
        for name, request, verdict in cases(scheme, maker(now))
    ]
    both = mixed(now)
    listed.append(("standard", "v1a, v1", both, "accept"))
    listed.append(("standard-v1a", "v1a, v1", both, "accept"))
    for name, request in kore_published():
        listed.append(("kore", name, request, "accept"))
        listed.append(("kore", f"{name}, with another URL", {**request, "url": URL}, "reject"))
    return listed


def captured(scheme: str, request: dict[str, Any]) -> str:
    body = request.get("body", BODY)
    return json.dumps(
        {
            "scheme": scheme,
            "method": "POST",
            "url": URL,
            "bodyBase64": base64.b64encode(body).decode(),
            **{key: value for key, value in request.items() if key != "body"},
        }
    )


def run(command: list[str], lines: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        command,
        input=lines.encode(),
        stdout=subprocess.PIPE,
        timeout=DEADLINE_SECONDS,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def refuses_nonsense(command: list[str]) -> bool:
    """A line that is no captured request must not pass for a verdict."""
    done = subprocess.run(
        command,
        input=b'{"scheme": "unheard-of"}\n',
        capture_output=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    return done.returncode == 2 and done.stdout == b""


def obeys_expect(command: list[str], line: str) -> bool:
    """The exit code says whether the verdicts were the expected ones."""
    codes = []
    for expected in ("accept", "reject"):
        request = json.dumps({**json.loads(line), "expect": expected})
        done = subprocess.run(
            command,
            input=request.encode(),
            capture_output=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )
        codes.append(done.returncode)
    return codes == [0, 1]


def main() -> int:
    node = os.environ["HOOKTURN_JUDGE_NODE"]
    commands = [
        ["node", str(Path(node, "verify.mjs"))],
        [os.environ["HOOKTURN_JUDGE_PYTHON"], str(Path(__file__).with_name("verify.py"))],
    ]
    listed = all_cases(int(time.time()))
    lines = "".join(captured(scheme, request) + "\n" for scheme, _, request, _ in listed)

    verdicts: dict[int, dict[str, dict[str, Any]]] = {}
    for answer in [answer for command in commands for answer in run(command, lines)]:
        judge = answer["judge"].rpartition("@")[0]
        verdicts.setdefault(answer["request"], {})[judge] = answer

    passed, failures = 0, []
    for number, (scheme, name, _, verdict) in enumerate(listed, start=1):
        for judge, with_two in KNOWN[scheme].items():
            expected = KNOWN_EXCEPTIONS.get((name, judge), verdict or with_two)
            answer = verdicts.get(number, {}).get(judge, {"verdict": "none", "detail": ""})
            if answer["verdict"] == expected:
                passed += 1
            else:
                failures.append(
                    f"{scheme}, {name}: {judge} said {answer['verdict']}, known to {expected}"
                    f" ({answer['detail']})"
                )
        for stranger in verdicts.get(number, {}).keys() - KNOWN[scheme].keys():
            failures.append(f"{scheme}, {name}: {stranger} is not listed here")
    for command in commands:
        for name, holds in {
            "refuses what is no request": refuses_nonsense(command),
            "answers `expect` by its exit code": obeys_expect(command, lines.splitlines()[0]),
        }.items():
            if holds:
                passed += 1
            else:
                failures.append(f"{command[-1]}: not true that it {name}")

    for failure in failures:
        print(f"FAILED {failure}")
    print(f"verdicts: {passed} passed, {len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
