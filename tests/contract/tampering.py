"""Changes of a version's native records and slot by somebody else, through each vendor's official client.

Every change is undone when its block ends. `changes` are those that a service takes, by what must be named afterwards;
`refusals` those that it does not take: what cannot be changed need not be looked for.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from google.auth.transport.requests import AuthorizedSession
from google.oauth2.credentials import Credentials

from lockstep.clouds.azureml.adapter import AzureML
from lockstep.clouds.sagemaker.adapter import SageMaker
from lockstep.clouds.vertex.adapter import Vertex
from lockstep.rules.state import Version
from tests.contract import aws_account, azure_account, gcp_rest
from tests.contract.clouds import Subject
from tests.sandbox_control import RunningSandbox

Undo = Callable[[], object]
Change = Callable[[Subject], Undo]


class Aws:
    """Model packages, Models and tags by boto3."""

    def __init__(self, sandbox: RunningSandbox) -> None:
        self.account = aws_account.Account(sandbox.settings["aws"])
        self.sm = self.account.sm

    def package(self, subject: Subject) -> Any:
        found = subject.cloud.registered(subject.stable)
        assert found is not None
        return self.sm.describe_model_package(ModelPackageName=found.resource)

    def update(self, subject: Subject, **changes: Any) -> Undo:
        package = self.package(subject)
        arn = package["ModelPackageArn"]
        before = {name: package[name] for name in changes}
        self.sm.update_model_package(ModelPackageArn=arn, **changes)
        return lambda: self.sm.update_model_package(ModelPackageArn=arn, **before)

    def container(self, subject: Subject, change: Callable[[dict[str, Any]], None]) -> Undo:
        specification = self.package(subject)["InferenceSpecification"]
        containers = [{name: value for name, value in specification["Containers"][0].items() if name != "ImageDigest"}]
        before = {**specification, "Containers": [{**containers[0]}]}
        change(containers[0])
        arn = self.package(subject)["ModelPackageArn"]

        def write(wanted: Mapping[str, Any]) -> None:
            self.sm.update_model_package(ModelPackageArn=arn, InferenceSpecification=wanted)

        write({**specification, "Containers": containers})
        return lambda: write(before)

    def image(self, subject: Subject) -> Undo:
        return self.container(subject, lambda one: one.update(Image=other(one["Image"])))

    def bytes(self, subject: Subject) -> Undo:
        place = f"{subject.cloud.store().uri}/{subject.canary.prefix}/"
        source = {"S3Uri": place, "S3DataType": "S3Prefix", "CompressionType": "None"}
        return self.container(subject, lambda one: one.update(ModelDataSource={"S3DataSource": source}))

    def variable(self, subject: Subject) -> Undo:
        return self.container(subject, lambda one: one.update(Environment={**one["Environment"], "EXTRA": "1"}))

    def deleted(self, subject: Subject) -> Undo:
        self.sm.delete_model_package(ModelPackageName=self.package(subject)["ModelPackageArn"])
        return lambda: subject.cloud.register(subject.stable)

    def endpoint_config(self, subject: Subject) -> Any:
        name = self.sm.describe_endpoint(EndpointName=subject.cloud.endpoint(subject.model))["EndpointConfigName"]
        return self.sm.describe_endpoint_config(EndpointConfigName=name)

    def model_name(self, subject: Subject) -> str:
        variants = self.endpoint_config(subject)["ProductionVariants"]
        return next(str(one["ModelName"]) for one in variants if one["VariantName"] == subject.stable.slot)

    def model(self, subject: Subject, change: Callable[[dict[str, Any]], None] | None) -> Undo:
        """Deleted under a running endpoint and, with `change`, made anew under its name."""
        name = self.model_name(subject)
        before = self.sm.describe_model(ModelName=name)
        given = {key: before[key] for key in ("ModelName", "ExecutionRoleArn")}
        self.sm.delete_model(ModelName=name)
        if change is not None:
            container = {**before["PrimaryContainer"]}
            change(container)
            self.sm.create_model(PrimaryContainer=container, **given)

        def undo() -> None:
            if change is not None:
                self.sm.delete_model(ModelName=name)
            self.sm.create_model(PrimaryContainer=before["PrimaryContainer"], **given)

        return undo

    def swapped(self, subject: Subject) -> Undo:
        return self.model(subject, lambda one: one.update(Image=other(one["Image"])))

    def impostor(self, subject: Subject) -> Undo:
        """The endpoint led to a configuration in which the slot stands for the other version's Model."""
        before, endpoint = self.endpoint_config(subject), subject.cloud.endpoint(subject.model)
        variants = [{**one} for one in before["ProductionVariants"]]
        others = [one["ModelName"] for one in variants if one["VariantName"] == subject.canary.slot]
        for one in variants:
            if one["VariantName"] == subject.stable.slot:
                one["ModelName"] = others[0]
        name = f"impostor-{uuid.uuid4().hex[:8]}"
        tags = self.sm.list_tags(ResourceArn=before["EndpointConfigArn"])["Tags"]
        self.sm.create_endpoint_config(EndpointConfigName=name, ProductionVariants=variants, Tags=tags)
        self.sm.update_endpoint(EndpointName=endpoint, EndpointConfigName=name)
        self.account.settled(endpoint)

        def undo() -> None:
            self.sm.update_endpoint(EndpointName=endpoint, EndpointConfigName=before["EndpointConfigName"])
            self.account.settled(endpoint)
            self.sm.delete_endpoint_config(EndpointConfigName=name)

        return undo

    def tag(self, subject: Subject) -> Undo:
        arn = self.endpoint_config(subject)["EndpointConfigArn"]
        key = f"lockstep-slot:{subject.stable.slot}"

        def write(digest: str) -> None:
            self.sm.add_tags(ResourceArn=arn, Tags=[{"Key": key, "Value": digest}])

        write("0" * 64)
        return lambda: write(subject.stable.digest)

    def changes(self) -> dict[str, Change]:
        """By what the sentence must say."""
        return {
            "metadata lockstep-digest": lambda s: self.update(
                s, CustomerMetadataProperties={**self.package(s)["CustomerMetadataProperties"], "lockstep-digest": "0"}
            ),
            "source is 's3://elsewhere/'": lambda s: self.update(s, SourceUri="s3://elsewhere/"),
            "approval is 'Rejected'": lambda s: self.update(s, ModelApprovalStatus="Rejected"),
            "model-package/.*: image is": self.image,
            "model-package/.*: bytes at": self.bytes,
            "variable EXTRA was added": self.variable,
            "has no package of": self.deleted,
            "SageMaker model .*: image is": self.swapped,
            "was deleted: instances that start": lambda s: self.model(s, None),
            "lockstep-slot:": self.tag,
            "variant .*: model is": self.impostor,
        }

    def refusals(self) -> dict[str, Callable[[Subject], object]]:
        """What SageMaker has no way to change."""
        return {
            "Unknown parameter": lambda s: self.sm.update_model_package(
                ModelPackageArn=self.package(s)["ModelPackageArn"], ModelPackageDescription="another"
            ),
            "already existing model": lambda s: self.sm.create_model(
                **{
                    key: self.sm.describe_model(ModelName=self.model_name(s))[key]
                    for key in ("ModelName", "ExecutionRoleArn", "PrimaryContainer")
                }
            ),
        }


class Azure:
    """Model versions, environments and deployments by Azure's Resource Manager client."""

    def __init__(self, sandbox: RunningSandbox) -> None:
        self.account = azure_account.Account(sandbox.settings["azure"], sandbox.control)

    def path(self, version: Version) -> str:
        return f"/models/{version.model}/versions/{version.label}"

    def slot(self, subject: Subject) -> str:
        return f"/onlineEndpoints/{subject.cloud.endpoint(subject.model)}/deployments/{subject.stable.slot}"

    def put(self, path: str, properties: Mapping[str, Any]) -> Any:
        answer = self.account.ask("PUT", path, {"properties": dict(properties)})
        if answer.status_code >= 400:
            raise AssertionError(answer.text())
        return answer

    def update(self, subject: Subject, name: str, change: Callable[[Any], Any]) -> Undo:
        path = self.path(subject.stable)
        before = self.account.ask("GET", path).json()["properties"][name]
        self.put(path, {name: change(before)})
        return lambda: self.put(path, {name: before})

    def deleted(self, subject: Subject) -> Undo:
        path = self.path(subject.stable)
        before = self.account.ask("GET", path).json()["properties"]
        kept = ("modelUri", "modelType", "description", "tags", "properties")
        self.account.ask("DELETE", path)
        return lambda: self.put(path, {name: before[name] for name in kept})

    def redeployed(self, subject: Subject, change: Callable[[dict[str, Any]], None]) -> Undo:
        path = self.slot(subject)
        before = self.account.ask("GET", path).json()
        given = {key: before[key] for key in ("location", "kind", "tags", "sku")}
        given["properties"] = {k: v for k, v in before["properties"].items() if k != "provisioningState"}
        wanted = {**given, "properties": {**given["properties"]}}
        change(wanted)
        self.account.done("PUT", path, wanted)
        return lambda: self.account.done("PUT", path, given)

    def variable(self, subject: Subject) -> Undo:
        def change(body: dict[str, Any]) -> None:
            body["properties"]["environmentVariables"] = {**body["properties"]["environmentVariables"], "EXTRA": "1"}

        return self.redeployed(subject, change)

    def impostor(self, subject: Subject) -> Undo:
        """The same slot over another registered version's bytes, answering under its digest."""
        other_id = self.account.ask("GET", self.path(subject.canary)).json()["id"]

        def change(body: dict[str, Any]) -> None:
            variables = {"LOCKSTEP_DIGEST": subject.canary.digest, "LOCKSTEP_VERSION": subject.stable.label}
            body["properties"].update(model=other_id, environmentVariables=variables)

        return self.redeployed(subject, change)

    def changes(self) -> dict[str, Change]:
        """By what the sentence must say."""
        return {
            "property lockstep-digest": lambda s: self.update(s, "properties", lambda p: {**p, "lockstep-digest": "0"}),
            "property mlflow-run-id": lambda s: self.update(s, "properties", lambda p: {**p, "mlflow-run-id": "x"}),
            "tag lockstep-version": lambda s: self.update(s, "tags", lambda t: {**t, "lockstep-version": "9"}),
            "it was archived": lambda s: self.update(s, "isArchived", lambda _: True),
            "no model version of": self.deleted,
            "deployment .*: environment variable EXTRA was added": self.variable,
            "deployment .*: model is": self.impostor,
        }

    def refusals(self) -> dict[str, Callable[[Subject], object]]:
        """What Azure does not let anybody change."""
        return {
            "cannot be updated": lambda s: self.put(
                self.path(s.stable), {"modelUri": "azureml://datastores/x/paths/y"}
            ),
            "cannot be changed": lambda s: self.put(
                "/" + self.environment_of(s), {"image": "acme.azurecr.io/another@sha256:" + "0" * 64}
            ),
        }

    def environment_of(self, subject: Subject) -> str:
        identifier = self.account.ask("GET", self.slot(subject)).json()["properties"]["environmentId"]
        return str(identifier)[str(identifier).index("environments/") :]


class Google:
    """Vertex versions and deployed models by google-auth's session over the REST API."""

    def __init__(self, sandbox: RunningSandbox) -> None:
        given = sandbox.settings["gcp"]
        session = AuthorizedSession(Credentials(token=given["token"]))  # type: ignore[no-untyped-call]
        self.vertex = gcp_rest.Vertex(session, given)

    def name(self, subject: Subject) -> str:
        found = subject.cloud.registered(subject.stable)
        assert found is not None
        return "/" + found.resource.rpartition("/")[2]

    def update(self, subject: Subject, field: str, change: Callable[[Any], Any]) -> Undo:
        path = self.name(subject)
        before = self.vertex.models("GET", path)[field]

        def write(value: Any) -> None:
            self.vertex.models("PATCH", path, {field: value}, updateMask=field)

        write(change(before))
        return lambda: write(before)

    def alias(self, subject: Subject) -> Undo:
        path = f"{self.name(subject)}:mergeVersionAliases"
        self.vertex.models("POST", path, {"versionAliases": [f"-{subject.stable.slot}"]})
        return lambda: self.vertex.models("POST", path, {"versionAliases": [subject.stable.slot]})

    def second(self, subject: Subject) -> Undo:
        """Another version's model under the name of the slot."""
        other_one = subject.cloud.registered(subject.canary)
        assert other_one is not None
        endpoint = subject.cloud.endpoint(subject.model)
        made = self.vertex.deploy(endpoint, other_one.resource.rpartition("/")[2], displayName=subject.stable.slot)
        body = {"deployedModelId": made}
        return lambda: self.vertex.done(self.vertex.endpoints("POST", f"/{endpoint}:undeployModel", body))

    def impostor(self, subject: Subject) -> Undo:
        """All traffic of the slot to another version's model under the slot's name."""
        endpoint = subject.cloud.endpoint(subject.model)
        before = self.vertex.endpoints("GET", f"/{endpoint}")
        undeploy = self.second(subject)
        known = {one["id"] for one in before["deployedModels"]}
        now = self.vertex.endpoints("GET", f"/{endpoint}")
        made = next(one["id"] for one in now["deployedModels"] if one["id"] not in known)
        self.vertex.split(endpoint, {made: 100})

        def undo() -> None:
            self.vertex.split(endpoint, before["trafficSplit"])
            undeploy()

        return undo

    def changes(self) -> dict[str, Change]:
        """By what the sentence must say."""
        return {
            "label lockstep-digest": lambda s: self.update(s, "labels", lambda old: {**old, "lockstep-digest": "0"}),
            "label lockstep-run-id": lambda s: self.update(s, "labels", lambda old: {**old, "lockstep-run-id": "x"}),
            "versionDescription is 'another'": lambda s: self.update(s, "versionDescription", lambda _: "another"),
            "alias .* was taken away": self.alias,
            "2 deployed models are called": self.second,
            "deployed model .*: model is": self.second,
        }

    def refusals(self) -> dict[str, Callable[[Subject], object]]:
        """What Vertex AI does not let anybody change: neither bytes nor image, and no version that is deployed goes."""
        spec = {"imageUri": "europe-west4-docker.pkg.dev/a/b/c"}
        return {
            "artifactUri": lambda s: self.vertex.models(
                "PATCH", self.name(s), {"artifactUri": "gs://elsewhere"}, updateMask="artifactUri"
            ),
            "containerSpec": lambda s: self.vertex.models(
                "PATCH", self.name(s), {"containerSpec": spec}, updateMask="containerSpec"
            ),
            "is deployed": lambda s: self.vertex.models("DELETE", self.name(s).partition("@")[0]),
        }


Tamperer = Aws | Azure | Google


def tamperer(subject: Subject, sandbox: RunningSandbox) -> Tamperer:
    """Somebody with the cloud's own tools."""
    if isinstance(subject.cloud, SageMaker):
        return Aws(sandbox)
    if isinstance(subject.cloud, AzureML):
        return Azure(sandbox)
    assert isinstance(subject.cloud, Vertex), f"say in this file how records of a {subject.kind} are changed"
    return Google(sandbox)


@contextmanager
def changed(subject: Subject, change: Change) -> Iterator[None]:
    """The change for as long as the block lasts."""
    undo = change(subject)
    try:
        yield
    finally:
        undo()


def refused(act: Callable[[], object]) -> str:
    """The service's words when it does not take a change; every vendor has errors of its own."""
    with pytest.raises(Exception) as caught:
        act()
    return str(caught.value)


def other(image: str) -> str:
    """Another image of the same repository."""
    return f"{image.rpartition(':')[0]}:{'0' * 64}"
