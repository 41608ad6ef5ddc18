"""What the sandbox's clouds capture of requests, by the vendors' own clients alone."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any, cast

import pytest
import requests
from botocore.exceptions import ClientError

from tests.contract.aws_account import Account
from tests.contract.azure_account import Account as AzureAccount
from tests.contract.clouds import breast_cancer_rows, eventually
from tests.model_files import ModelVersion
from tests.sandbox_control import RunningSandbox


@pytest.fixture(scope="module")
def aws(sandbox: RunningSandbox) -> Iterator[Account]:
    if "aws" not in sandbox.settings:
        pytest.skip("the sandbox runs without AWS")
    account = Account(sandbox.settings["aws"])
    yield account
    account.clean()


def capture_config(account: Account, prefix: str, percent: object = 100, **more: object) -> dict[str, object]:
    return {
        "EnableCapture": True,
        "InitialSamplingPercentage": percent,
        "DestinationS3Uri": f"s3://{account.bucket}/{prefix}",
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        **more,
    }


def captured(account: Account, prefix: str) -> dict[str, list[dict[str, Any]]]:
    listed = account.s3.list_objects_v2(Bucket=account.bucket, Prefix=f"{prefix}/").get("Contents", [])
    found = {}
    for item in listed:
        content = account.s3.get_object(Bucket=account.bucket, Key=item["Key"])["Body"].read()
        found[item["Key"].removeprefix(f"{prefix}/")] = [json.loads(line) for line in content.splitlines()]
    return found


def test_sagemaker_writes_lines_by_variant_and_hour(
    aws: Account, model_versions: tuple[ModelVersion, ModelVersion], sandbox: RunningSandbox
) -> None:
    sealed = model_versions[0]
    model = aws.model(aws.upload(sealed.folder, sealed.digest), sealed.digest)
    prefix = aws.name("captures")
    json_too = {"CaptureContentTypeHeader": {"JsonContentTypes": ["application/json"]}}
    capturing = aws.config(("v1", model, 1.0), DataCaptureConfig=capture_config(aws, prefix, **json_too))
    described = aws.sm.describe_endpoint_config(EndpointConfigName=capturing)["DataCaptureConfig"]
    assert described["InitialSamplingPercentage"] == 100
    endpoint = aws.endpoint(capturing)
    assert aws.settled(endpoint)["DataCaptureConfig"]["CaptureStatus"] == "Started"
    body = json.dumps({"instances": breast_cancer_rows(1)}).encode()

    def send(**more: str) -> None:
        aws.runtime.invoke_endpoint(EndpointName=endpoint, Body=body, ContentType="application/json", **more)

    before = sandbox.control.delays({})
    sandbox.control.delays({"aws.capture.flush": 0.5})
    try:
        send(InferenceId="request-1")
        send()
        assert captured(aws, prefix) == {}, "captures come late"
        assert eventually(lambda: captured(aws, prefix))
    finally:
        sandbox.control.delays({"aws.capture.flush": before["aws.capture.flush"]})
    ((key, lines),) = captured(aws, prefix).items()
    owner, variant, *hour, name = key.split("/")
    assert (owner, variant, len(hour)) == (endpoint, "v1", 4)
    assert name.endswith(".jsonl")
    first, second = lines
    assert first["eventMetadata"]["inferenceId"] == "request-1"
    assert "inferenceId" not in second["eventMetadata"]
    assert first["eventMetadata"]["inferenceTime"][:13] == "-".join(hour[:3]) + "T" + hour[3]
    given, answered = first["captureData"]["endpointInput"], first["captureData"]["endpointOutput"]
    assert (given["mode"], given["encoding"], given["data"]) == ("INPUT", "JSON", body.decode())
    assert (answered["mode"], "predictions" in answered["data"]) == ("OUTPUT", True)

    # The configuration that is put in place decides, whatever else the update retains.
    silent = aws.config(("v1", model, 1.0))
    aws.sm.update_endpoint(EndpointName=endpoint, EndpointConfigName=silent, RetainAllVariantProperties=True)
    assert "DataCaptureConfig" not in aws.settled(endpoint)
    send(InferenceId="request-2")
    assert len(captured(aws, prefix)) == 1


def test_sagemaker_takes_no_capture_that_it_does_not_emulate(
    aws: Account, model_versions: tuple[ModelVersion, ModelVersion]
) -> None:
    sealed = model_versions[0]
    model = aws.model(aws.upload(sealed.folder, sealed.digest), sealed.digest)
    for config, status in (
        (capture_config(aws, "x", KmsKeyId="alias/key"), 501),
        (capture_config(aws, "x", percent=101), 400),
    ):
        with pytest.raises(ClientError) as raised:
            aws.config(("v1", model, 1.0), DataCaptureConfig=config)
        assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == status


@pytest.fixture(scope="module")
def azure(sandbox: RunningSandbox) -> Iterator[AzureAccount]:
    if "azure" not in sandbox.settings:
        pytest.skip("the sandbox runs without Azure")
    account = AzureAccount(sandbox.settings["azure"], sandbox.control)
    yield account
    account.clean()


def test_azure_writes_events_by_deployment_and_hour(
    azure: AzureAccount, model_versions: tuple[ModelVersion, ModelVersion]
) -> None:
    from azure.ai.ml.entities import DataCollector, DeploymentCollection, RequestLogging
    from azure.storage.blob import ContainerClient

    sealed = model_versions[0]
    model, environment = azure.model(azure.upload(sealed)), azure.environment()
    endpoint = azure.endpoint()
    collecting = DataCollector(
        {"request": DeploymentCollection(enabled="true"), "response": DeploymentCollection(enabled="true")},
        rolling_rate="hour",
        sampling_rate=1.0,
        request_logging=RequestLogging(capture_headers=["x-ms-client-request-id"]),
    )
    wire = cast(Any, collecting._to_rest_object()).as_dict()  # as MLClient puts it into the deployment
    body = azure.deployment_body(model, environment, sealed.digest, dataCollector=wire)
    azure.done("PUT", f"/onlineEndpoints/{endpoint}/deployments/blue", body)
    azure.split(endpoint, blue=100)
    frame = {"columns": list(breast_cancer_rows(1)[0]), "data": [list(breast_cancer_rows(1)[0].values())]}
    sent = {"x-ms-client-request-id": "request_1-" + "x" * 40, "X-Request-ID": "mine"}
    answer = azure.score(endpoint, frame, **sent)
    assert answer.status_code == 200
    assert answer.headers["X-Request-ID"] != "mine", "Azure gives its own"
    assert answer.headers["x-ms-client-request-id"] == sent["x-ms-client-request-id"][:40]

    settings = azure.settings
    address = settings["blob_endpoint"]
    container = ContainerClient(
        address, settings["default_container"], credential=settings["storage_key"], connection_verify=azure.ca
    )
    place = f"modelDataCollector/{endpoint}/blue/"
    events: dict[str, dict[str, Any]] = {}

    def collected() -> bool:
        for name in container.list_blob_names(name_starts_with=place):
            collection, *hour, blob = name.removeprefix(place).split("/")
            (line,) = container.download_blob(name).readall().splitlines()
            events[collection] = json.loads(line)
            assert "-".join(hour[:3]) + "T" + hour[3] == events[collection]["time"][:13]
            assert blob.endswith(".jsonl")
        return set(events) == {"request", "response"}

    assert eventually(collected)
    for collection, event in events.items():
        assert event["type"] == f"azureml.inference.{collection}"
        assert event["source"].lower().endswith(f"/onlineendpoints/{endpoint}/deployments/blue")
        assert event["xrequestid"] == event["correlationid"] == answer.headers["X-Request-ID"]
    assert events["request"]["data"] == {"dataframe_split": frame}
    assert events["response"]["data"] == answer.json()
    assert events["request"]["xmsclientrequestid"] == sent["x-ms-client-request-id"][:40]


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"rollingRate": "Minute"}, 501),
        ({"collections": {"model_inputs": {"dataCollectionMode": "Enabled"}}}, 501),
        ({"collections": {}}, 400),
        ({"collections": {"request": {"dataCollectionMode": "Enabled", "samplingRate": 2}}}, 400),
    ],
)
def test_azure_takes_no_collector_that_it_does_not_emulate(
    azure: AzureAccount, model_versions: tuple[ModelVersion, ModelVersion], changes: dict[str, object], status: int
) -> None:
    sealed = model_versions[0]
    endpoint = azure.endpoint()
    collector = {"collections": {"request": {"dataCollectionMode": "Enabled"}}, **changes}
    model, environment = azure.model(azure.upload(sealed)), azure.environment()
    body = azure.deployment_body(model, environment, sealed.digest, dataCollector=collector)
    assert azure.ask("PUT", f"/onlineEndpoints/{endpoint}/deployments/blue", body).status_code == status


def test_vertex_logs_rows_that_one_statement_of_bigquery_finds(sandbox: RunningSandbox) -> None:
    if "gcp" not in sandbox.settings:
        pytest.skip("the sandbox runs without Google Cloud")
    from google.api_core.exceptions import BadRequest, GoogleAPICallError
    from google.cloud import aiplatform
    from google.oauth2.credentials import Credentials

    given = sandbox.settings["gcp"]
    credentials = Credentials(token=given["token"])  # type: ignore[no-untyped-call]
    aiplatform.init(
        project=given["project"],
        location=given["location"],
        api_endpoint=given["api_endpoint"],
        api_transport="rest",
        credentials=credentials,
    )
    table = f"{given['project']}.{given['capture_dataset']}.{uuid.uuid4().hex}"
    endpoint = aiplatform.Endpoint.create(
        display_name="captures",
        enable_request_response_logging=True,
        request_response_logging_sampling_rate=1.0,
        request_response_logging_bq_destination_table=f"bq://{table}",
    )
    try:
        config = endpoint.gca_resource.predict_request_response_logging_config
        assert (config.enabled, config.bigquery_destination.output_uri) == (True, f"bq://{table}")
    finally:
        endpoint.delete()
    with pytest.raises((BadRequest, GoogleAPICallError), match="Dataset"):
        aiplatform.Endpoint.create(
            display_name="nowhere",
            enable_request_response_logging=True,
            request_response_logging_sampling_rate=1.0,
            request_response_logging_bq_destination_table=f"bq://{given['project']}.absent.t",
        )
    body = {"query": f"SELECT * FROM `{table}`", "useLegacySql": False}
    refused = requests.post(
        f"{given['bigquery_endpoint']}/bigquery/v2/projects/{given['project']}/queries",
        json=body,
        headers={"Authorization": f"Bearer {given['token']}"},
        timeout=30,
    )
    assert (refused.status_code, refused.json()["error"]["status"]) == (501, "UNIMPLEMENTED")
