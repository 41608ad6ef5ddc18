"""Outcomes from where users keep them: files, SQL, Prometheus; and what is said when they cannot be read."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pandas as pd
import pytest
import sqlalchemy

from lockstep.errors import ConfigError, UnreachableError
from lockstep.rules.state import Version
from lockstep.stores.outcomes import Columns, FileOutcomes, OutcomeCount, PrometheusOutcomes, SqlOutcomes

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
SINCE, UNTIL = NOW - timedelta(minutes=10), NOW
EXPECTED = (OutcomeCount("aws", "1", 2, 1), OutcomeCount("gcp", "2", 1, 0))


def at(minutes: float) -> str:
    return (NOW - timedelta(minutes=minutes)).isoformat()


def rows() -> pd.DataFrame:
    """Two outcomes of v1 on aws (one bad, delivered twice), one of v2 on gcp, and two outside the period."""
    return pd.DataFrame(
        [
            (at(10), "a", "aws", "1", 1),
            (at(5), "b", "aws", "1", 1),
            (at(4), "b", "aws", "1", 0),
            (at(1), "c", "gcp", "2", 1),
            (at(11), "old", "aws", "1", 0),
            (at(0), "late", "aws", "1", 0),
        ],
        columns=["time", "request_id", "cloud", "version", "value"],
    )


def test_csv_and_parquet(tmp_path: Path) -> None:
    rows().to_csv(tmp_path / "outcomes.csv", index=False)
    rows().to_parquet(tmp_path / "outcomes.parquet")
    for name in ("outcomes.csv", "outcomes.parquet"):
        assert FileOutcomes(path=str(tmp_path / name)).counts(SINCE, UNTIL) == EXPECTED


def test_a_folder_and_a_glob_are_read_as_one(tmp_path: Path) -> None:
    (tmp_path / "day" / "deep").mkdir(parents=True)
    rows().iloc[:2].to_csv(tmp_path / "day" / "part-1.csv", index=False)
    rows().iloc[2:].assign(time=lambda frame: pd.to_datetime(frame["time"])).to_parquet(
        tmp_path / "day" / "deep" / "part-2.parquet"
    )
    (tmp_path / "day" / "part-3.csv").touch()  # made, and not written yet
    assert FileOutcomes(path=str(tmp_path / "day")).counts(SINCE, UNTIL) == EXPECTED
    assert FileOutcomes(path=str(tmp_path / "day" / "part-*.csv")).counts(SINCE, UNTIL) == (
        OutcomeCount("aws", "1", 2, 0),
    )


def test_what_is_not_there_yet_is_no_outcome(tmp_path: Path) -> None:
    assert FileOutcomes(path=str(tmp_path / "nothing.csv")).counts(SINCE, UNTIL) == ()
    rows().to_csv(tmp_path / "outcomes.csv", index=False)
    joined = FileOutcomes(path=str(tmp_path / "outcomes.csv"), requests=str(tmp_path / "nothing.csv"))
    assert joined.counts(SINCE, UNTIL) == ()


def test_cloud_and_version_by_request_id(tmp_path: Path) -> None:
    rows()[["time", "request_id", "value"]].to_csv(tmp_path / "outcomes.csv", index=False)
    known = rows()[["request_id", "cloud", "version"]]
    known.to_parquet(tmp_path / "requests.parquet")  # the request that was delivered twice is twice here as well
    source = FileOutcomes(path=str(tmp_path / "outcomes.csv"), requests=str(tmp_path / "requests.parquet"))
    assert source.counts(SINCE, UNTIL) == EXPECTED


def test_a_join_replaces_what_the_outcomes_say_of_cloud_and_version(tmp_path: Path) -> None:
    rows().to_csv(tmp_path / "outcomes.csv", index=False)
    rows()[["request_id", "cloud", "version"]].to_csv(tmp_path / "requests.csv", index=False)
    source = FileOutcomes(path=str(tmp_path / "outcomes.csv"), requests=str(tmp_path / "requests.csv"))
    assert source.counts(SINCE, UNTIL) == EXPECTED


def test_columns_and_threshold_are_the_users(tmp_path: Path) -> None:
    frame = rows().rename(columns={"value": "score", "request_id": "id"}).assign(score=[0.9, 0.8, 0.7, 0.95, 0, 0])
    frame.to_csv(tmp_path / "outcomes.csv", index=False)
    columns = Columns(request_id="id", value="score")
    source = FileOutcomes(path=str(tmp_path / "outcomes.csv"), columns=columns, good_from=0.75)
    assert source.counts(SINCE, UNTIL) == EXPECTED


def test_a_version_goes_by_label_digest_or_slot() -> None:
    version = Version("tumour", "3", "ab" * 32)
    named = ("3", version.digest, version.slot, "4", "v3")
    assert [OutcomeCount("aws", name, 1, 0).is_of(version) for name in named] == [True, True, True, False, False]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("time,id,value\n", ("request_id", "time, id, value")),
        ("", ()),
        ("time,request_id,cloud,version,value\nyesterday,a,aws,1,1\n", ("time", "yesterday")),
        (f"time,request_id,cloud,version,value\n{at(1)},a,aws,1,good\n", ("value", "good")),
    ],
)
def test_a_file_that_does_not_fit_says_why(tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    path = tmp_path / "outcomes.csv"
    path.write_text(text)
    source = FileOutcomes(path=str(path))
    if not words:
        assert source.counts(SINCE, UNTIL) == ()
        return
    with pytest.raises(ConfigError) as caught:
        source.counts(SINCE, UNTIL)
    assert [word for word in words if word not in str(caught.value)] == []
    assert "lockstep.yaml" in caught.value.hint


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "outcomes.parquet").write_text("no parquet")
    with pytest.raises(UnreachableError, match=r"outcomes\.parquet"):
        FileOutcomes(path=str(tmp_path / "outcomes.parquet")).counts(SINCE, UNTIL)
    rows()[["time", "request_id", "value"]].to_csv(tmp_path / "outcomes.csv", index=False)
    (tmp_path / "requests.csv").write_text("id,cloud\n1,aws\n")
    source = FileOutcomes(path=str(tmp_path / "outcomes.csv"), requests=str(tmp_path / "requests.csv"))
    with pytest.raises(ConfigError, match="request_id"):
        source.counts(SINCE, UNTIL)


def test_sql(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'outcomes.db'}"
    with sqlalchemy.create_engine(url).connect() as connection:
        rows().to_sql("outcomes", connection)
        connection.commit()
    everything = "SELECT time, request_id, cloud, version, value FROM outcomes"
    assert SqlOutcomes(url=url, query=everything).counts(SINCE, UNTIL) == EXPECTED
    narrowed = f"{everything} WHERE time >= :since AND time < :until"
    assert SqlOutcomes(url=url, query=narrowed).counts(SINCE, UNTIL) == EXPECTED


@pytest.mark.parametrize("query", ["SELECT * FROM nowhere", "SELEKT 1"])
def test_sql_errors(tmp_path: Path, query: str) -> None:
    with pytest.raises(UnreachableError, match="outcomes cannot be read") as caught:
        SqlOutcomes(url=f"sqlite:///{tmp_path / 'empty.db'}", query=query).counts(SINCE, UNTIL)
    assert "query" in caught.value.hint
    with pytest.raises(UnreachableError):
        SqlOutcomes(url=f"sqlite:///{tmp_path}/no/such/folder.db", query="SELECT 1").counts(SINCE, UNTIL)
    with pytest.raises(UnreachableError):
        SqlOutcomes(url="nothing://here", query="SELECT 1").counts(SINCE, UNTIL)


class Prometheus(BaseHTTPRequestHandler):
    """Answers two queries as Prometheus does, and refuses or spoils the others."""

    asked: ClassVar[list[dict[str, str]]] = []

    def do_GET(self) -> None:
        asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        self.asked.append(asked)
        answers = {
            "total[600s]": {("aws", "1"): "20", ("gcp", "2"): "9.6"},
            "bad[600s]": {("aws", "1"): "5.2"},
            "nothing": {},
            "odd": {("aws", "1"): "NaN"},
        }
        query = asked["query"]
        if query == "broken":
            self._send(502, "<html>Bad gateway</html>")
        elif query not in answers:
            self._send(400, json.dumps({"status": "error", "errorType": "bad_data", "error": "parse error at char 3"}))
        else:
            result: list[dict[str, Any]] = [
                {"metric": {"cloud": cloud, "version": version}, "value": [NOW.timestamp(), value]}
                for (cloud, version), value in answers[query].items()
            ]
            self._send(200, json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}))

    def _send(self, status: int, body: str) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def prometheus() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Prometheus)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_query_that_does_not_end_is_given_up() -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) AS time FROM n"
    threads = set(threading.enumerate())
    source = SqlOutcomes(url="sqlite://", query=endless, timeout=0.3)
    with pytest.raises(UnreachableError, match=r"no answer within 0\.3 s") as caught:
        source.counts(SINCE, UNTIL)
    assert "timeout" in caught.value.hint
    for thread in set(threading.enumerate()) - threads:
        thread.join(10)
        assert not thread.is_alive(), "the query was cancelled"


def test_prometheus(prometheus: str) -> None:
    Prometheus.asked.clear()
    source = PrometheusOutcomes(url=f"{prometheus}/", total="total[{seconds}s]", bad="bad[{seconds}s]")
    assert source.counts(SINCE, UNTIL) == (OutcomeCount("aws", "1", 20, 5), OutcomeCount("gcp", "2", 10, 0))
    assert {asked["time"] for asked in Prometheus.asked} == {str(UNTIL.timestamp())}
    assert PrometheusOutcomes(url=prometheus, total="nothing", bad="nothing").counts(SINCE, UNTIL) == ()


def test_prometheus_without_a_number_counts_as_nothing(prometheus: str) -> None:
    assert PrometheusOutcomes(url=prometheus, total="odd", bad="odd").counts(SINCE, UNTIL) == ()


def test_prometheus_errors(prometheus: str) -> None:
    with pytest.raises(ConfigError, match="parse error at char 3") as refused:
        PrometheusOutcomes(url=prometheus, total="what?", bad="nothing").counts(SINCE, UNTIL)
    assert "query" in refused.value.hint
    with pytest.raises(UnreachableError, match="Prometheus") as spoilt:
        PrometheusOutcomes(url=prometheus, total="broken", bad="nothing").counts(SINCE, UNTIL)
    assert "url" in spoilt.value.hint
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:1"):
        PrometheusOutcomes(url="http://127.0.0.1:1", total="a", bad="b").counts(SINCE, UNTIL)
