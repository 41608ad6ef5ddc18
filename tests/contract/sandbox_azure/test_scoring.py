"""What an endpoint of the Azure sandbox answers, what is counted of it, and what goes wrong on request."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import requests
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError
from azure.monitor.querymetrics import MetricsClient

from tests.contract.azure_account import Account
from tests.contract.sandbox_azure.shelf import SPACE, Shelf, deploy, operation, refused


class TestScoring:
    def test_answers_carry_deployment_and_request_ids(
        self, azure: Account, shelf: Shelf, served: str, rows: dict[str, Any]
    ) -> None:
        azure.split(served, blue=100)
        answer = azure.score(served, rows, **{"x-ms-client-request-id": "mine"})
        assert answer.status_code == 200
        assert len(answer.json()["predictions"]) == 2
        assert answer.headers["azureml-model-deployment"] == "blue"
        assert answer.headers["x-ms-client-request-id"] == "mine"
        assert answer.headers["X-Request-ID"] not in ("", "mine")
        assert answer.headers["X-Lockstep-Digest"] == shelf.digests["v1"]
        forced = azure.score(served, rows, **{"azureml-model-deployment": "green"})
        assert (forced.status_code, forced.headers["azureml-model-deployment"]) == (200, "green")
        assert forced.headers["X-Lockstep-Digest"] == shelf.digests["v2"]

    def test_refusals(self, azure: Account, served: str, rows: dict[str, Any]) -> None:
        azure.split(served)
        assert "nonzero weight" in azure.score(served, rows).text
        assert azure.score(served, rows).status_code == 404
        assert azure.score(served, rows, **{"azureml-model-deployment": "red"}).status_code == 404
        assert [azure.score(served, {"data": [0] * 3000}, "wrong").status_code for _ in range(3)] == [401] * 3
        bad = azure.score(served, "nonsense", **{"azureml-model-deployment": "blue"})
        assert bad.status_code == 424
        assert bad.headers["ms-azureml-model-error-statuscode"] == "400"
        assert bad.headers["azureml-model-deployment"] == "blue"

    def test_late_answers_are_408_and_too_many_at_once_429(
        self, azure: Account, shelf: Shelf, rows: dict[str, Any]
    ) -> None:
        endpoint = azure.endpoint()
        slow = {"maxConcurrentRequestsPerInstance": 1, "requestTimeout": "PT0.0005S"}
        deploy(azure, shelf, endpoint, "slow", "v1", requestSettings=slow)
        key, forced = azure.key(endpoint), {"azureml-model-deployment": "slow"}
        assert azure.score(endpoint, rows, key, **forced).status_code == 408
        deploy(azure, shelf, endpoint, "slow", "v1", requestSettings={**slow, "requestTimeout": "PT30S"})
        assert azure.score(endpoint, rows, key, **forced).status_code == 200
        uri = azure.ask("GET", f"/onlineEndpoints/{endpoint}").json()["properties"]["scoringUri"]
        many = {"dataframe_split": {**rows, "data": rows["data"] * 2000}}

        def ask(_: int) -> int:
            headers = {"Authorization": f"Bearer {key}", **forced}
            with requests.Session() as session:
                session.trust_env = False
                return session.post(uri, json=many, headers=headers, verify=azure.ca, timeout=60).status_code

        with ThreadPoolExecutor(12) as pool:
            statuses = Counter(pool.map(ask, range(24)))
        assert set(statuses) == {200, 429}

    def test_weights_split_the_requests(self, azure: Account, served: str, rows: dict[str, Any]) -> None:
        azure.split(served, blue=75, green=25)
        key = azure.key(served)
        uri = azure.ask("GET", f"/onlineEndpoints/{served}").json()["properties"]["scoringUri"]
        headers = {"Authorization": f"Bearer {key}"}
        seen = Counter(
            azure.http.post(uri, json={"dataframe_split": rows}, headers=headers, timeout=10).headers[
                "azureml-model-deployment"
            ]
            for _ in range(120)
        )
        assert 6 <= seen["green"] <= 54  # 25 % of 120, five standard deviations wide
        assert seen["blue"] + seen["green"] == 120

    def test_no_request_is_lost_by_flips_and_replacements(
        self, azure: Account, shelf: Shelf, rows: dict[str, Any]
    ) -> None:
        endpoint = azure.endpoint()
        deploy(azure, shelf, endpoint, "blue", "v1")
        deploy(azure, shelf, endpoint, "green", "v2")
        azure.split(endpoint, blue=100)
        key = azure.key(endpoint)
        uri = azure.ask("GET", f"/onlineEndpoints/{endpoint}").json()["properties"]["scoringUri"]
        stop, outcomes = threading.Event(), []

        def load() -> None:
            with requests.Session() as session:
                session.trust_env = False
                session.verify = azure.ca
                while not stop.is_set():
                    answer = session.post(
                        uri, json={"dataframe_split": rows}, headers={"Authorization": f"Bearer {key}"}, timeout=60
                    )
                    outcomes.append((answer.status_code, answer.headers.get("azureml-model-deployment")))

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(5):
                azure.split(endpoint, green=100)
                azure.split(endpoint, blue=100)
            deploy(azure, shelf, endpoint, "blue", "v2")
            azure.split(endpoint, green=100)
            azure.done("DELETE", f"/onlineEndpoints/{endpoint}/deployments/blue")
        finally:
            stop.set()
            for thread in threads:
                thread.join(timeout=60)
        assert {status for status, _ in outcomes} == {200}
        assert {name for _, name in outcomes} == {"blue", "green"}


class TestFaults:
    def test_stale_reads_show_the_old_traffic_while_the_new_is_served(
        self, azure: Account, served: str, rows: dict[str, Any]
    ) -> None:
        azure.split(served, blue=100)
        azure.fault("stale")
        azure.split(served, green=100)
        assert azure.traffic(served) == {"blue": 100}
        assert azure.score(served, rows).headers["azureml-model-deployment"] == "green"
        azure.control.clear()
        assert azure.traffic(served) == {"green": 100}

    @pytest.mark.parametrize("kind", ["ignore", "revert"])
    def test_a_success_that_changed_nothing(self, azure: Account, served: str, kind: str) -> None:
        azure.split(served, blue=100)
        azure.fault(kind, "OnlineEndpoints_CreateOrUpdate", resource=served)
        azure.split(served, green=100)
        assert azure.traffic(served) == {"blue": 100}
        azure.split(served, green=100)
        assert azure.traffic(served) == {"green": 100}

    def test_ignored_and_reverted_deployments_do_not_exist(self, azure: Account, shelf: Shelf) -> None:
        endpoint = azure.endpoint()
        for kind in ("ignore", "revert"):
            azure.fault(kind, "OnlineDeployments_CreateOrUpdate")
            body = azure.deployment_body(shelf.models["v1"], shelf.environment, shelf.digests["v1"])
            answer = azure.ask("PUT", f"/onlineEndpoints/{endpoint}/deployments/{kind}", body)
            assert operation(azure, answer)["status"] == "Succeeded"
            assert azure.ask("GET", f"/onlineEndpoints/{endpoint}/deployments/{kind}").status_code == 404

    def test_failures_and_throttling_come_in_the_vendors_words(
        self, azure: Account, served: str, rows: dict[str, Any]
    ) -> None:
        azure.fault("fail", "OnlineEndpoints_Get", status=503)
        refused(azure.ask("GET", f"/onlineEndpoints/{served}"), 503, "InternalServerError")
        azure.fault("throttle", "OnlineEndpoints_*")
        answer = azure.ask("GET", f"/onlineEndpoints/{served}")
        refused(answer, 429, "TooManyRequests")
        assert answer.headers["Retry-After"] == "1"
        azure.split(served, blue=100)
        azure.fault("fail", "Score", status=502)
        assert [azure.score(served, rows).status_code for _ in range(2)] == [502, 200]

    def test_down_takes_everything(self, azure: Account, served: str) -> None:
        key = azure.key(served)
        uri = azure.ask("GET", f"/onlineEndpoints/{served}").json()["properties"]["scoringUri"]
        azure.fault("down")
        for address in (uri, azure.settings["blob_endpoint"], azure.settings["metrics_endpoint"]):
            with pytest.raises(requests.ConnectionError):
                azure.http.get(address, headers={"Authorization": f"Bearer {key}"}, timeout=10)
        with pytest.raises(Exception, match=r"Connection|reset|closed"):
            azure.ask("GET", f"/onlineEndpoints/{served}")
        azure.control.clear()
        assert azure.ask("GET", f"/onlineEndpoints/{served}").status_code == 200

    def test_nothing_can_be_evicted(self, azure: Account, served: str) -> None:
        with pytest.raises(ValueError, match="404"):
            azure.control.evict("azure", served, "blue")


class TestMetrics:
    def test_latency_and_counts_by_deployment_and_status(
        self, azure: Account, served: str, rows: dict[str, Any]
    ) -> None:
        azure.split(served, blue=100)
        client = MetricsClient(azure.settings["metrics_endpoint"], azure.credential, connection_verify=azure.ca)
        identifier = f"{azure.workspace}/onlineEndpoints/{served}"

        def total(metric: str, filter_: str, aggregation: str) -> dict[Any, float]:
            result = client.query_resources(
                resource_ids=[identifier],
                metric_namespace=SPACE,
                metric_names=[metric],
                timespan=timedelta(minutes=10),
                granularity=timedelta(minutes=1),
                aggregations=[aggregation],
                filter=filter_,
            )[0]
            return {
                tuple(sorted(series.metadata_values.values())): sum(getattr(v, aggregation) or 0.0 for v in series.data)
                for series in result.metrics[metric].timeseries  # type: ignore[call-overload]
            }

        by_status = "deployment eq '*' and statusCodeClass eq '*'"
        before = total("RequestsPerMinute", by_status, "total")
        for _ in range(5):
            azure.score(served, rows)
        for _ in range(3):
            azure.score(served, "nonsense", **{"azureml-model-deployment": "green"})
        after = total("RequestsPerMinute", by_status, "total")
        assert after[("2xx", "blue")] - before.get(("2xx", "blue"), 0) == 5
        assert after[("4xx", "green")] - before.get(("4xx", "green"), 0) == 3
        assert set(total("RequestLatency_P95", "deployment eq 'blue'", "average")) == {("blue",)}
        average = total("RequestLatency", "deployment eq '*'", "average")
        assert 0 < average[("blue",)] < 20_000
        azure.fault("lag", delay=300)
        assert total("RequestsPerMinute", by_status, "total").get(("2xx", "blue"), 0) == 0
        azure.control.clear()
        assert total("RequestsPerMinute", by_status, "total")[("2xx", "blue")] >= 5
        for metric, filter_ in (("Nonsense", ""), ("RequestLatency", "statusCode eq '*'")):
            with pytest.raises(HttpResponseError, match="BadRequest"):
                total(metric, filter_, "average")

    def test_the_right_audience_is_needed(self, azure: Account, served: str) -> None:
        class Wrong:
            def get_token(self, *scopes: str, **kwargs: Any) -> AccessToken:
                return azure.credential.get_token("https://management.azure.com/.default")

        client = MetricsClient(azure.settings["metrics_endpoint"], Wrong(), connection_verify=azure.ca)
        with pytest.raises(ClientAuthenticationError, match="audience"):
            client.query_resources(
                resource_ids=[f"{azure.workspace}/onlineEndpoints/{served}"],
                metric_namespace=SPACE,
                metric_names=["RequestLatency"],
            )
