"""Keeps what schemathesis generates on this machine.

Schemathesis is free to make up any URL, and the server under test would deliver to it. So every text of a
request body that is a URL keeps its path but gets the host of a receiver on loopback, and what leaves
this process is looked at once more, byte by byte as it goes out: a body that still names another host
stops the run. Query, headers and path parameters never become a target of deliveries.

`HOOKTURN_RECEIVER` is the receiver's origin, such as `http://127.0.0.1:4711`.
"""

import atexit
import collections
import itertools
import json
import os
import re
import tomllib

import requests.adapters
import schemathesis
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation.meta import TestPhase
from schemathesis.openapi.checks import RejectedPositiveData

RECEIVER = os.environ["HOOKTURN_RECEIVER"]

# What a URL parser accepts, not what a URL should look like: leading control characters, tabs and line
# ends anywhere, one slash or five, either way round.
IGNORED = re.compile(r"[\t\n\r]")
LEADING = "".join(map(chr, range(0x21)))
URL = re.compile(r"(?i)https?:[/\\]*[^/\\?#]*(.*)", re.DOTALL)


def local(value):
    """The same JSON with every URL turned to the receiver."""
    if isinstance(value, dict):
        return {name: local(member) for name, member in value.items()}
    if isinstance(value, list):
        return [local(member) for member in value]
    if isinstance(value, str) and (found := URL.fullmatch(parsed(value))):
        rest = found[1]
        return f"{RECEIVER}{rest if rest.startswith(('/', '?', '#')) else '/'}"
    return value


def parsed(text):
    return IGNORED.sub("", text).lstrip(LEADING)


with open("schemathesis.toml", "rb") as file:
    RULES = tomllib.load(file)


def bound(parameters):
    """For each bound path parameter the ids that are there, over and over."""
    return {
        name.removeprefix("path."): itertools.cycle(RULES["dictionaries"][binding["dictionary"]]["values"])
        for name, binding in parameters.items()
        if name.startswith("path.")
    }


THERE = bound(RULES["parameters"])
ELSEWHERE = [(rule, bound(rule["parameters"])) for rule in RULES["operations"]]


# Without these the run could go on, and would examine nothing: its own key, and what the other ids belong to.
KEPT = {one for name in ("clientIds", "endpointIds", "keptApiKeyIds") for one in RULES["dictionaries"][name]["values"]}
SPARE = THERE | ELSEWHERE[0][1] | ELSEWHERE[1][1]


def spare_what_must_stay(case):
    """An answer's ids are used again, also to delete: those of KEPT are replaced by ones that may go."""
    for name, value in (case.path_parameters or {}).items():
        if value in KEPT and name == last_parameter(case.operation.path):
            case.path_parameters[name] = next(SPARE[name])


def last_parameter(path):
    return path.rpartition("{")[2].rstrip("}")


def meet_what_is_there(case):
    """The phase that goes through a schema's cases binds no parameters by itself: without this, all its
    requests would be about things that do not exist, and nothing behind that would be reached."""
    ids = dict(THERE)
    for rule, instead in ELSEWHERE:
        label = case.operation.label
        if rule.get("include-name", label) == label and re.search(rule.get("include-path-regex", ""), label):
            ids |= instead
    for name in case.path_parameters or ():
        if name in ids:
            case.path_parameters[name] = next(ids[name])


@schemathesis.hook
def before_call(context, case, kwargs):
    if isinstance(case.body, (dict, list, str)):
        case.body = local(case.body)
    meta = case.meta
    if meta.phase.name == TestPhase.COVERAGE and not meta.is_negative_at(ParameterLocation.PATH):
        meet_what_is_there(case)
    if case.method == "DELETE":
        spare_what_must_stay(case)
    # The coverage phase cannot make a value for this optional header, and sends it empty instead of leaving it out.
    if case.headers and case.headers.get("If-Match") == "":
        del case.headers["If-Match"]


class ForeignTarget(Exception):
    """A request was about to name a target that is not on this machine."""


def foreign(body):
    """The first URL in a body, as a JSON parser would see it, that is not the receiver's."""
    try:
        values = [json.loads(body)]
    except ValueError:
        # What is no JSON, the server cannot read either.
        return None
    while values:
        value = values.pop()
        if isinstance(value, dict):
            values += value.values()
        elif isinstance(value, list):
            values += value
        elif isinstance(value, str) and URL.fullmatch(text := parsed(value)):
            if not (text == RECEIVER or text.startswith((f"{RECEIVER}/", f"{RECEIVER}?", f"{RECEIVER}#"))):
                return text
    return None


send = requests.adapters.HTTPAdapter.send


def guarded_send(self, request, *args, **kwargs):
    if request.body and (url := foreign(request.body)):
        raise ForeignTarget(url)
    return send(self, request, *args, **kwargs)


requests.adapters.HTTPAdapter.send = guarded_send


STATUSES = collections.defaultdict(set)


@schemathesis.hook
def after_call(context, case, response):
    STATUSES[case.operation.label].add(response.status_code)


@atexit.register
def report():
    """What every operation answered, for the test: one that never succeeded was not examined."""
    with open("statuses.json", "w", encoding="utf-8") as file:
        json.dump({operation: sorted(statuses) for operation, statuses in STATUSES.items()}, file)


# What a schema cannot say: requests of the right form that are refused for their meaning. Each is a field or
# parameter of a refusal (400 or 422) with the reason why it is no fault.
MEANING = {
    "cursor": "only the server makes cursors, each for one list",
    "url": "Hopae's spelling of /url",
    "webhookConfig.url": "Hopae's spelling of /url",
    "/url": "only a disabled endpoint may have none, and not every address is allowed",
    "/method": "GET is for the preset kore only",
    "/bodyForm": "form is for the preset kore only",
    "/until": "must be after since",
    "/since": "must be before now",
    "/overlapSeconds": "an immediate rotation has none, and a proven one has a policy instead",
    "/policy": "belongs to mode proven",
    "/policy/stalePercent": "asks for too little proof with the confidence beside it",
    "/policy/probeBackOffMaxMillis": "must not be shorter than the time between two probes",
    "/policy/holdDownMillis": "must be shorter than the window",
    "/policy/deadlineMillis": "must be later than hold-down and quiet time",
    "/policy/canaryPercent": "must be three shares, smallest first",
    "/probe/body": "must be readable by receivers and small",
    "/connectTimeoutMillis": "is within the timeout of the same endpoint",
    "/expiresAt": "must be in the future",
    "/retireAt": "must be later than the date it replaces",
    "/deadlineAt": "must be in the future, and belongs to mode proven",
    "/operationalApp": "must be an app of the workspace",
    "/selector": "must name something, or say that it means all",
    "/waves": "must grow and end at 100",
    "/hashes": "either hashes or a text",
    "/secretType": "belongs to a keyring of the endpoint's own",
    "/secretName": "the same",
    "/keyringId": "must be a keyring of the workspace",
    "/clientId": "must be an app of the workspace, and a schedule is for a keyring or for an app, not for both",
    "/everyDays": "a schedule goes by age or by the calendar",
    "/calendar": "a schedule goes by age or by the calendar, not by both",
    "/timeZone": "must be in the IANA database",
    "/secret": "which texts are keys depends on the scheme of the endpoints that it signs for",
}
# The same for fields below these: numbers of a policy and spans of blackouts that do not fit each other.
BELOW = ("/policy/", "/waves/", "/weeklyBlackouts", "/dateBlackouts/")
CODES = {"idempotency_mismatch": "made-up keys repeat, with other bodies"}


@schemathesis.hook
def filter_failure(context, failure, case, response):
    if not isinstance(failure, RejectedPositiveData) or response.status_code not in (400, 422):
        return True
    try:
        problem = response.json()
        if problem.get("code") in CODES:
            return False
        names = list(refused(problem))
    except (ValueError, KeyError, TypeError):
        return True
    return not all(name in MEANING or name.startswith(BELOW) for name in names)


def refused(problem):
    """What was refused, as whichever API answered names it."""
    if "error" in problem:  # Hopae's: one parameter
        yield problem["error"]["details"]["parameter"]
    elif "message" in problem:  # KORE's: names and reasons in one sentence
        for sentence in problem["message"].removeprefix("nothing was changed: ").split("; "):
            yield sentence.partition(": ")[0]
    else:
        for error in problem["errors"]:
            yield error.get("pointer") or error.get("parameter") or error.get("header")
