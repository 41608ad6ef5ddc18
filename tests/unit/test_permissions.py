"""What is needed on each cloud by its settings, what an answer means, and how it is told."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from lockstep.clouds.azureml import permissions as azure
from lockstep.clouds.azureml.settings import AzureMLSettings
from lockstep.clouds.sagemaker import permissions as aws
from lockstep.clouds.sagemaker.settings import SageMakerSettings
from lockstep.clouds.sagemaker.simulation import results_of
from lockstep.clouds.vertex import permissions as gcp
from lockstep.clouds.vertex.settings import VertexSettings
from lockstep.rules.permissions import Finding, Need, Permissions, as_json, refusal, told

MOVE = Need("cloud:Move", "endpoint/churn", "moves traffic")
INDEX = Need("cloud:List", "*", "looks at many", optional=True)
GUIDE = "docs/clouds.md#cloud"
ROLES = ("actions", "notActions")


def of(*granted: bool | None) -> Permissions:
    return Permissions(
        tuple(
            Finding(need, answer, "nobody knows" if answer is None else "")
            for need, answer in zip((MOVE, INDEX), granted, strict=False)
        )
    )


def test_missing_is_told_with_its_purpose_and_place() -> None:
    assert told(of(True, True), GUIDE) == ()
    missing, spared = told(of(False, False), GUIDE)
    assert missing == f"missing cloud:Move on endpoint/churn (moves traffic): see {GUIDE}"
    assert spared == f"may do without cloud:List on * (looks at many): see {GUIDE}"
    assert [finding.need for finding in of(False, False).lacking] == [MOVE]


def test_one_permission_on_many_resources_is_one_line() -> None:
    needs = [Need("cloud:Move", f"endpoint/{number}", "moves traffic") for number in range(4)]
    (line,) = told(Permissions(tuple(Finding(need, False) for need in needs)), GUIDE)
    assert "endpoint/0 and 3 more" in line


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from([True, False, None]), st.booleans())))
def test_every_finding_is_granted_missing_or_unknown_and_only_the_granted_are_silent(
    drawn: list[tuple[str, bool | None, bool]],
) -> None:
    found = Permissions(tuple(Finding(Need(name, "*", "does it", spare), answer) for name, answer, spare in drawn))
    granted = [finding for finding in found.findings if finding.granted]
    assert len(granted) + len(found.missing) + len(found.unknown) == len(found.needed) == len(drawn)
    assert set(found.lacking) <= set(found.missing)
    assert bool(told(found, GUIDE)) == bool(found.missing or found.unknown)
    assert bool(refusal({"aws": found.lacking})) == bool(found.lacking)


def test_what_cannot_be_told_is_neither_granted_nor_missing() -> None:
    found = Permissions(tuple(Finding(need, None, "the caller may not ask") for need in (MOVE, INDEX)))
    assert (found.missing, len(found.unknown)) == ((), 2)
    assert told(found, GUIDE) == ("cannot tell about cloud:Move, cloud:List: the caller may not ask",)
    assert refusal({"aws": found.lacking}) == ""
    shown = as_json(of(False, None))
    assert [one["permission"] for one in shown["missing"]] == ["cloud:Move"]  # type: ignore[attr-defined]
    assert [one["why"] for one in shown["cannot_tell"]] == ["nobody knows"]  # type: ignore[attr-defined]


def test_a_refusal_names_the_clouds_and_a_few_permissions() -> None:
    needs = [Need(f"cloud:{name}", "*", "") for name in "ABCDE"]
    text = refusal({"aws": [Finding(need, False) for need in needs], "gcp": []})
    assert text == "aws does not grant cloud:A, cloud:B, cloud:C and 2 more"


# -- what follows from the settings ------------------------------------------------------------------------------------


def sagemaker(**changes: Any) -> list[aws.Part]:
    given = {"image": "i", "region": "r-1", "bucket": "bytes", "role_arn": "arn:aws:iam::1:role/serving"}
    settings = SageMakerSettings(**{**given, **changes})
    return list(aws.parts(settings, aws.Account("aws-cn", "1"), ["churn", "tumour"]))


def test_aws_is_asked_for_the_resources_that_will_be_worked_on() -> None:
    asked = {(action, resource) for part in sagemaker() for action in part.actions for resource in part.resources}
    assert ("sagemaker:UpdateEndpoint", "arn:aws-cn:sagemaker:r-1:1:endpoint/tumour") in asked
    assert ("s3:PutObject", "arn:aws-cn:s3:::bytes/lockstep/models/churn/*") in asked
    assert not any(action == "s3:PutObjectRetention" for action, _ in asked), "no bucket for the ledger is configured"
    with_ledger = sagemaker(archive_bucket="ledger", prefix="", capture_percent=5)
    asked = {(action, resource) for part in with_ledger for action in part.actions for resource in part.resources}
    assert ("s3:PutObjectRetention", "arn:aws-cn:s3:::ledger/ledger/*") in asked
    assert ("s3:GetObject", "arn:aws-cn:s3:::bytes/captured/*") in asked
    (passing,) = (part for part in with_ledger if "iam:PassRole" in part.actions)
    assert passing.context == {"iam:PassedToService": "sagemaker.amazonaws.com", "aws:RequestedRegion": "r-1"}


def test_azure_needs_no_roles_for_bytes_where_there_is_the_accounts_key() -> None:
    given: dict[str, Any] = {
        "image": "i", "subscription_id": "s", "resource_group": "g", "workspace": "w", "region": "r",
        "storage_account": "a", "container": "bytes", "archive_container": "ledger",
    }  # fmt: skip
    by_key = azure.parts(AzureMLSettings(**given, storage_key=SecretStr("k")))
    assert not any(part.data for part in by_key)
    elsewhere = azure.parts(AzureMLSettings(**given, storage_resource_group="bytes-group"))
    models, ledger = (part for part in elsewhere if part.data)
    assert "/resourceGroups/bytes-group/" in models.resource
    assert models.resource.endswith("/storageAccounts/a/blobServices/default/containers/bytes")
    assert set(models.data) - set(ledger.data) == {f"{azure.CONTAINER}/blobs/delete"}


def test_google_is_asked_about_a_service_account_where_one_is_configured() -> None:
    given: dict[str, Any] = {"image": "i", "project": "p", "location": "l", "bucket": "bytes"}
    assert [part.kind for part in gcp.parts(VertexSettings(**given))] == ["project", "bucket"]
    full = gcp.parts(VertexSettings(**given, archive_bucket="ledger", service_account="x@y", capture_dataset="d"))
    assert [part.kind for part in full] == ["project", "bucket", "bucket", "account"]
    assert gcp.ROWS in full[0].permissions
    assert max(len(part.permissions) for part in full) <= 100, "one request takes a hundred"


# -- what answers mean -------------------------------------------------------------------------------------------------


def role(*actions: str, but: tuple[str, ...] = (), condition: str | None = None) -> dict[str, Any]:
    return {"actions": list(actions), "notActions": list(but), "condition": condition}


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        ([], False),
        ([role("*")], True),
        ([role("*/read")], False),
        ([role("microsoft.ml/*/WRITE")], True),
        ([role("Microsoft.ML/endpoints")], False),
        ([role("*", but=("Microsoft.ML/*",))], False),
        ([role("*", but=("Microsoft.ML/*",)), role("Microsoft.ML/endpoints/write")], True),
        ([role("*", condition="@Resource[…]")], None),
        ([role("*", condition="@Resource[…]"), role("*")], True),
    ],
)
def test_azures_roles_add_up_and_take_out_only_their_own(roles: list[dict[str, Any]], expected: bool | None) -> None:
    assert azure.allowed("Microsoft.ML/endpoints/write", roles, *ROLES) is expected


ACTION = st.text("ab/.*", min_size=1, max_size=8)


@given(ACTION.filter(lambda text: "*" not in text), st.lists(ACTION, max_size=4), st.lists(ACTION, max_size=4))
def test_azure_another_role_never_takes_away(action: str, given: list[str], taken: list[str]) -> None:
    one, other = role(*given, but=tuple(taken)), role(action)
    assert azure.allowed(action, [one, other], *ROLES) is True
    assert azure.allowed(action, [role(*given, action, but=(*taken, action))], *ROLES) is False


def test_aws_answers_by_resource_and_admits_what_only_a_request_would_show() -> None:
    result = {
        "EvalActionName": "s3:GetObject",
        "EvalResourceName": "arn:${Partition}:s3:::${BucketName}/${KeyName}",
        "EvalDecision": "implicitDeny",
        "ResourceSpecificResults": [
            {"EvalResourceName": "a", "EvalResourceDecision": "allowed"},
            {"EvalResourceName": "b", "EvalResourceDecision": "explicitDeny"},
            {"EvalResourceName": "c", "EvalResourceDecision": "implicitDeny", "MissingContextValues": ["aws:SourceIp"]},
            {
                "EvalResourceName": "d",
                "EvalResourceDecision": "implicitDeny",
                "PermissionsBoundaryDecisionDetail": {"AllowedByPermissionsBoundary": False},
            },
            {"EvalResourceName": "e", "EvalResourceDecision": "allowed", "MissingContextValues": ["aws:SourceVpc"]},
            {"EvalResourceName": "f", "EvalResourceDecision": "explicitDeny", "MissingContextValues": ["aws:SourceIp"]},
        ],
    }
    answers = results_of(result, tuple("abcdef"))
    assert [answers["s3:GetObject", name][0] for name in "abcdef"] == [True, False, None, False, None, None]
    assert "aws:SourceIp" in answers["s3:GetObject", "c"][1]
    assert "boundary" in answers["s3:GetObject", "d"][1]
    everywhere = {"EvalActionName": "s3:ListBucket", "EvalResourceName": "*", "EvalDecision": "allowed"}
    assert results_of(everywhere, ("*",)) == {("s3:ListBucket", "*"): (True, "")}
