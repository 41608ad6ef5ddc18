"""IAM's own answer to what the caller may do: SimulatePrincipalPolicy, which tries nothing.

It evaluates the policies of a user or role with groups, boundary and the organisation's. It does not know a session's
own policy, nor the policies of buckets. https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lockstep.clouds.sagemaker.clients import Clients
from lockstep.clouds.sagemaker.errors import FORBIDDEN, code_of
from lockstep.clouds.sagemaker.permissions import Account, Part, parts
from lockstep.clouds.sagemaker.settings import SageMakerSettings
from lockstep.rules.permissions import Finding, Need, Permissions

CALLER: Final = re.compile(r"arn:(?P<partition>[^:]+):(?:iam|sts)::(?P<account>\d+):(?P<kind>[^/]+)(?:/(?P<name>.+))?")
#: Most results that one page may hold.
PAGE: Final = 1000

#: Of an action on a resource: whether it is allowed, None for "cannot tell", and why.
Answers = Mapping[tuple[str, str], tuple[bool | None, str]]


@dataclass(frozen=True)
class Principal:
    """Whose policies IAM is asked to evaluate: a user or role; `arn` is "" where there is none, and `why` says so."""

    account: Account
    arn: str = ""
    why: str = ""


class _CannotAskError(Exception):
    """IAM answers nothing about this caller; the text says why."""


def ask(clients: Clients, settings: SageMakerSettings, models: Collection[str]) -> Permissions:
    """What is needed, and what of it IAM says that the caller has."""
    caller = principal(clients)
    why, findings = caller.why, []
    for part in parts(settings, caller.account, models):
        answers: Answers = {}
        if not why:
            try:
                answers = simulate(clients.iam, caller.arn, part, tuple(part.actions))
            except _CannotAskError as error:
                why = str(error)
        for action, purpose in part.actions.items():
            for resource in part.resources:
                granted, reason = answers.get((action, resource), (None, why or "IAM's answer leaves it out"))
                need = Need(action, resource, purpose, action in part.optional)
                findings.append(Finding(need, granted, reason))
    return Permissions(tuple(findings))


def principal(clients: Clients) -> Principal:
    """The user or role behind the credentials; a session of a role is not what policies hang on."""
    arn = str(clients.sts.get_caller_identity()["Arn"])
    found = CALLER.fullmatch(arn)
    if found is None:
        return Principal(Account("aws", "*"), why=f"AWS calls the caller {arn}, which is neither user nor role")
    account = Account(found["partition"], found["account"])
    if found["kind"] == "user":
        return Principal(account, arn)
    if found["kind"] == "assumed-role":
        return Principal(account, _role(clients, account, found["name"].partition("/")[0]))
    what = "the account's root user" if found["kind"] == "root" else f"a {found['kind']}"
    return Principal(account, why=f"the caller is {what}, for which IAM evaluates no policies: use a role or a user")


def _role(clients: Clients, account: Account, name: str) -> str:
    """ARN of a role. A session's ARN leaves out the path that the role may lie under; only IAM knows it."""
    try:
        return str(clients.iam.get_role(RoleName=name)["Role"]["Arn"])
    except Exception as error:
        if code_of(error) not in FORBIDDEN:
            raise
        return f"arn:{account.partition}:iam::{account.number}:role/{name}"


def simulate(iam: Any, caller: str, part: Part, actions: Sequence[str]) -> Answers:
    """IAM's answers about these actions of a part on all of its resources."""
    request: dict[str, Any] = {
        "PolicySourceArn": caller,
        "ActionNames": list(actions),
        "ResourceArns": list(part.resources),
        "MaxItems": PAGE,
        "ContextEntries": [
            *({"ContextKeyName": key, "ContextKeyValues": [value], "ContextKeyType": "string"}
              for key, value in part.context.items()),
            {"ContextKeyName": "aws:SecureTransport", "ContextKeyValues": ["true"], "ContextKeyType": "boolean"},
        ],
    }  # fmt: skip
    found: dict[tuple[str, str], tuple[bool | None, str]] = {}
    while True:
        try:
            page = iam.simulate_principal_policy(**request)
        except Exception as error:
            return _refused(error, iam, caller, part, actions)
        for result in page.get("EvaluationResults", ()):
            found.update(results_of(result, part.resources))
        if not page.get("IsTruncated"):
            return found
        request["Marker"] = page["Marker"]


def _refused(error: Exception, iam: Any, caller: str, part: Part, actions: Sequence[str]) -> Answers:
    code = code_of(error)
    if code in FORBIDDEN:
        raise _CannotAskError(f"the caller may not ask: allow iam:SimulatePrincipalPolicy on {caller}") from error
    if code == "NoSuchEntity":
        raise _CannotAskError(f"IAM knows no {caller}; for a role under a path allow iam:GetRole on it") from error
    if code != "InvalidInput":
        raise error
    if len(actions) == 1:  # nothing is known of this one; the others may well be
        text = " ".join(str(error).split())
        return {(actions[0], resource): (None, f"IAM does not evaluate it: {text}") for resource in part.resources}
    # Actions "require different authorization information": not documented which; each can be asked about alone.
    alone = [simulate(iam, caller, part, (action,)) for action in actions]
    return {key: value for answers in alone for key, value in answers.items()}


def results_of(result: Mapping[str, Any], resources: Sequence[str]) -> Answers:
    """Of one result: by resource, where IAM tells them apart, as it does unless all resources (`*`) are asked about."""
    action = str(result["EvalActionName"])
    specific = result.get("ResourceSpecificResults") or ()
    if not specific:
        return {(action, resource): _verdict(str(result["EvalDecision"]), result) for resource in resources}
    return {
        (action, str(one["EvalResourceName"])): _verdict(str(one["EvalResourceDecision"]), {**result, **one})
        for one in specific
    }


def _verdict(decision: str, details: Mapping[str, Any]) -> tuple[bool | None, str]:
    # Also of what it allows, where a refusal may hang on it; and a refusal to all but some regions holds without one.
    missing = details.get("MissingContextValues") or ()
    if missing:
        return None, f"it depends on {', '.join(missing)}, which only a real request has"
    if decision == "allowed":
        return True, ""
    if not details.get("OrganizationsDecisionDetail", {}).get("AllowedByOrganizations", True):
        return False, "the organisation's policy does not allow it"
    if not details.get("PermissionsBoundaryDecisionDetail", {}).get("AllowedByPermissionsBoundary", True):
        return False, "the permissions boundary does not allow it"
    return False, "a policy denies it" if decision == "explicitDeny" else ""
