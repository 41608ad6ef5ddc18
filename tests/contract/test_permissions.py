"""Who may do what: what each cloud's own clients see when a permission is taken away, and what cannot be told.

The general rules of the product's verb stand in `test_clouds.py`; here are each vendor's own.
"""

from __future__ import annotations

from typing import Any

import pytest
import requests
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import ContainerClient
from botocore.exceptions import ClientError

from lockstep.clouds.base import Cloud
from lockstep.clouds.sagemaker.permissions import Part
from lockstep.clouds.sagemaker.simulation import simulate
from lockstep.errors import CredentialsError, RefusedError
from lockstep.operations.permissions import ask_permissions, refuse_lacking
from lockstep.rules.permissions import told
from tests.contract import azure_account
from tests.contract.aws_account import Account
from tests.contract.clouds import sandbox_settings
from tests.sandbox_control import RunningSandbox

ML = "Microsoft.MachineLearningServices/workspaces"
BLOBS = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs"


def cloud(sandbox: RunningSandbox, kind: str, **changes: object) -> Cloud:
    home, settings = sandbox_settings(kind, sandbox, **changes)
    if settings is None:
        pytest.skip(f"the sandbox runs without the home of {kind}")
    return settings.connect(home or "")


def lines(found: Cloud) -> str:
    return "\n".join(told(found.permissions(["churn"]), found.guide))


# -- AWS ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def aws(sandbox: RunningSandbox) -> Account:
    return Account(sandbox.settings["aws"])


def refusal(call: Any, **arguments: Any) -> tuple[str, int, str]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    error = caught.value.response
    return error["Error"]["Code"], error["ResponseMetadata"]["HTTPStatusCode"], error["Error"]["Message"]


def test_aws_refuses_in_each_services_words(aws: Account, sandbox: RunningSandbox) -> None:
    with sandbox.control.denying("aws", "sagemaker:Delete*", "s3:PutObject", "iam:GetRole"):
        code, status, text = refusal(aws.sm.delete_endpoint, EndpointName="nothing")
        assert (code, status) == ("AccessDeniedException", 400)
        assert "not authorized to perform: sagemaker:DeleteEndpoint on resource: arn:aws:sagemaker:" in text
        code, status, _ = refusal(aws.s3.put_object, Bucket=aws.bucket, Key="denied", Body=b"")
        assert (code, status) == ("AccessDenied", 403)
        code, status, _ = refusal(aws.client("iam").get_role, RoleName="lockstep-serving")
        assert (code, status) == ("AccessDenied", 403)
        assert aws.s3.list_objects_v2(Bucket=aws.bucket, MaxKeys=1)["KeyCount"] <= 1
    assert refusal(aws.sm.delete_endpoint, EndpointName="nothing")[0] == "ValidationException"


def test_aws_simulates_as_documented(aws: Account) -> None:
    iam, me = aws.client("iam"), aws.client("sts").get_caller_identity()["Arn"]
    role = aws.settings["role_arn"]
    given = {"PolicySourceArn": me, "ActionNames": ["iam:PassRole"], "ResourceArns": [role]}
    (unset,) = iam.simulate_principal_policy(**given)["EvaluationResults"]
    (specific,) = unset["ResourceSpecificResults"]
    assert specific["EvalResourceDecision"] == "implicitDeny"
    assert specific["MissingContextValues"] == ["iam:PassedToService"]
    passed = {"ContextKeyName": "iam:PassedToService", "ContextKeyValues": ["sagemaker.amazonaws.com"]}
    entries = [{**passed, "ContextKeyType": "string"}]
    (allowed,) = iam.simulate_principal_policy(**given, ContextEntries=entries)["EvaluationResults"]
    assert allowed["EvalDecision"] == "allowed"
    pages = iam.get_paginator("simulate_principal_policy").paginate(
        PolicySourceArn=me, ActionNames=[f"s3:{name}Object" for name in ("Get", "Put", "Delete", "Eat")],
        ResourceArns=[f"arn:aws:s3:::{aws.bucket}/x"],
    )  # fmt: skip
    decisions = {one["EvalActionName"]: one["EvalDecision"] for page in pages for one in page["EvaluationResults"]}
    assert decisions == {"s3:GetObject": "allowed", "s3:PutObject": "allowed", "s3:DeleteObject": "allowed",
                         "s3:EatObject": "implicitDeny"}  # fmt: skip
    mixed = {**given, "ActionNames": ["sagemaker:CreateModel", "sagemaker:DescribeModel"]}
    assert refusal(iam.simulate_principal_policy, **mixed)[:2] == ("InvalidInput", 400)
    session = {**given, "PolicySourceArn": "arn:aws:sts::123456789012:assumed-role/lockstep-operator/s"}
    assert refusal(iam.simulate_principal_policy, **session)[:2] == ("InvalidInput", 400)
    nobody = {**given, "PolicySourceArn": "arn:aws:iam::123456789012:user/nobody"}
    assert refusal(iam.simulate_principal_policy, **nobody)[:2] == ("NoSuchEntity", 404)


def test_a_session_of_a_role_is_told_by_its_roles_policies(aws: Account, sandbox: RunningSandbox) -> None:
    """The role lies under a path, which the session's name leaves out: only iam:GetRole tells it."""
    answer = aws.client("sts").assume_role(
        RoleArn="arn:aws:iam::123456789012:role/teams/ml/lockstep-operator", RoleSessionName="shift"
    )["Credentials"]
    keys = {
        "access_key_id": answer["AccessKeyId"],
        "secret_access_key": answer["SecretAccessKey"],
        "session_token": answer["SessionToken"],
    }
    assert lines(cloud(sandbox, "sagemaker", **keys)) == ""
    with sandbox.control.denying("aws", "iam:GetRole"):
        said = lines(cloud(sandbox, "sagemaker", **keys))
    assert "cannot tell" in said
    assert "allow iam:GetRole" in said
    assert "missing" not in said


def test_aws_is_asked_one_by_one_where_iam_will_not_mix(aws: Account) -> None:
    me = aws.client("sts").get_caller_identity()["Arn"]
    endpoint = f"arn:aws:sagemaker:{aws.settings['region']}:{aws.settings['account_id']}:endpoint/churn"
    mixed = Part((endpoint,), {"sagemaker:CreateEndpoint": "", "sagemaker:UpdateEndpoint": "", "sagemaker:Eat": ""})
    answers = simulate(aws.client("iam"), me, mixed, tuple(mixed.actions))
    assert {action: granted for (action, _), (granted, _) in answers.items()} == {
        "sagemaker:CreateEndpoint": True,
        "sagemaker:UpdateEndpoint": True,
        "sagemaker:Eat": False,
    }


def test_credentials_that_iam_does_not_know_are_an_error(sandbox: RunningSandbox) -> None:
    with pytest.raises(CredentialsError):
        cloud(sandbox, "sagemaker", access_key_id="AKIANOBODY").permissions()


# -- Azure -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def azure(sandbox: RunningSandbox) -> azure_account.Account:
    return azure_account.Account(sandbox.settings["azure"], sandbox.control)


def test_azure_refuses_in_its_own_words(azure: azure_account.Account, sandbox: RunningSandbox) -> None:
    settings = azure.settings
    by_role = ContainerClient(
        settings["blob_endpoint"], settings["container"], credential=azure.credential, connection_verify=azure.ca,
        retry_total=0,
    )  # fmt: skip
    with sandbox.control.denying("azure", f"{ML}/onlineEndpoints/read", f"{BLOBS}/write"):
        answer = azure.ask("GET", "/onlineEndpoints")
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "AuthorizationFailed")
        assert f"'{ML}/onlineEndpoints/read'" in answer.json()["error"]["message"]
        with pytest.raises(HttpResponseError) as caught:
            by_role.upload_blob("denied", b"")
        assert caught.value.status_code == 403
        azure.blobs.upload_blob("by-key", b"", overwrite=True)  # the account's key needs no role
    assert azure.ask("GET", "/onlineEndpoints").status_code == 200


def test_azure_says_nothing_without_the_right_to_ask(sandbox: RunningSandbox) -> None:
    workspace = cloud(sandbox, "azureml", storage_key=None)
    with sandbox.control.denying("azure", "Microsoft.Authorization/permissions/read"):
        said = lines(workspace)
    assert "cannot tell" in said
    assert "allow Microsoft.Authorization/permissions/read on /subscriptions/" in said
    assert "missing" not in said


def test_azure_takes_the_storage_accounts_group_from_the_settings(sandbox: RunningSandbox) -> None:
    said = lines(cloud(sandbox, "azureml", storage_key=None, storage_resource_group="elsewhere"))
    assert "correct storage_account or storage_resource_group" in said
    assert "missing" not in said


# -- Google ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (["aiplatform.endpoints.get", "aiplatform.endpoints.update"], 200),
        (["aiplatform.*"], 400),
        (["aiplatform.endpoints.shake"], 400),
        (["aiplatform.endpoints.get"] * 101, 400),
    ],
)
def test_google_answers_about_a_project(sandbox: RunningSandbox, asked: list[str], status: int) -> None:
    given = sandbox.settings["gcp"]
    url = f"{given['resource_manager_endpoint']}/v3/projects/{given['project']}:testIamPermissions"
    headers = {"Authorization": f"Bearer {given['token']}"}
    with sandbox.control.denying("gcp", "aiplatform.endpoints.update"):
        answer = requests.post(url, json={"permissions": asked}, headers=headers, timeout=30)
    assert answer.status_code == status
    assert status == 400 or answer.json() == {"permissions": ["aiplatform.endpoints.get"]}


def test_google_refuses_in_its_own_words(sandbox: RunningSandbox) -> None:
    given = sandbox.settings["gcp"]
    headers = {"Authorization": f"Bearer {given['token']}"}
    endpoints = f"{given['api_endpoint']}/v1/projects/{given['project']}/locations/{given['location']}/endpoints"
    bucket = f"{given['storage_endpoint']}/storage/v1/b/{given['bucket']}"
    with sandbox.control.denying("gcp", "aiplatform.endpoints.list", "storage.objects.list"):
        refused = requests.get(endpoints, headers=headers, timeout=30)
        assert (refused.status_code, refused.json()["error"]["status"]) == (403, "PERMISSION_DENIED")
        refused = requests.get(f"{bucket}/o", headers=headers, timeout=30)
        assert refused.status_code == 403
        assert "storage.objects.list" in refused.json()["error"]["message"]
        assert requests.get(bucket, headers=headers, timeout=30).status_code == 200
        asked = {"permissions": ["storage.objects.list", "storage.objects.get"]}
        answer = requests.get(f"{bucket}/iam/testPermissions", params=asked, headers=headers, timeout=30)
        assert answer.json()["permissions"] == ["storage.objects.get"]


def test_google_is_asked_whether_the_service_account_may_be_used(sandbox: RunningSandbox) -> None:
    account = f"serving@{sandbox.settings['gcp']['project']}.iam.gserviceaccount.com"
    with sandbox.control.denying("gcp", "iam.serviceAccounts.actAs"):
        assert f"missing iam.serviceAccounts.actAs on projects/-/serviceAccounts/{account}" in lines(
            cloud(sandbox, "vertex", service_account=account)
        )
        assert lines(cloud(sandbox, "vertex")) == "", "containers run as Vertex AI's own account"
    assert "cannot tell" in lines(cloud(sandbox, "vertex", service_account="x@nowhere.iam.gserviceaccount.com"))


def test_what_only_the_dataset_may_grant_cannot_be_told(sandbox: RunningSandbox) -> None:
    with sandbox.control.denying("gcp", "bigquery.tables.getData"):
        assert "cannot tell about bigquery.tables.getData" in lines(cloud(sandbox, "vertex"))


# -- all of them -------------------------------------------------------------------------------------------------------


def test_a_cloud_that_does_not_answer_is_no_missing_permission(sandbox: RunningSandbox) -> None:
    clouds = [cloud(sandbox, kind) for kind in ("sagemaker", "azureml", "vertex")]
    with sandbox.control.during("azure", "down"), sandbox.control.denying("gcp", "aiplatform.models.get"):
        answers = ask_permissions(clouds, {"aws": ["churn"]})
        assert answers["aws"].told() == ()
        (line,) = answers["azure"].told()
        assert line.startswith("cannot tell what is granted: ")
        assert "error" in answers["azure"].as_json()
        refuse_lacking({name: answers[name] for name in ("aws", "azure")})
        with pytest.raises(RefusedError, match=r"gcp does not grant aiplatform\.models\.get"):
            refuse_lacking(answers)


# -- the control address -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"cloud": "aws", "denied": ["sagemaker:UpdateEndpoints"]}, "sagemaker:UpdateEndpoint"),
        ({"cloud": "aws", "denied": "sagemaker:UpdateEndpoint"}, "list"),
        ({"cloud": "aws"}, "denied"),
        ({"cloud": "moon", "denied": []}, "moon"),
    ],
)
def test_what_would_have_no_effect_is_refused(sandbox: RunningSandbox, body: dict[str, object], word: str) -> None:
    answer = requests.put(f"{sandbox.control.url}/permissions", json=body, timeout=30)
    assert answer.status_code == 400
    assert word in answer.json()["error"]
    shown = requests.get(f"{sandbox.control.url}/permissions", timeout=30).json()
    assert not any(shown.values())
