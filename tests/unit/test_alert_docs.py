"""docs/alerts.md: every kind of source is shown, as the agent reads it, and what is pasted at Datadog is read."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from lockstep.agent.alert_rules import load_alert_rules, parse_alert_rules
from lockstep.agent.source_settings import SnsSource
from lockstep.agent.written_secrets import REFERENCE
from lockstep.rules.alerts.sources import datadog
from tests.deliveries import ADAPTER, GENUINE
from tests.docs_snippets import Snippet, named_json, snippets

PAGE = Path("docs/alerts.md")
SOURCES = [one for one in snippets(PAGE) if one.mark == "source"]


def environment(text: str) -> dict[str, str]:
    return {found[2:-1]: "a-secret-of-more-than-16-characters" for found in REFERENCE.findall(text)}


@pytest.mark.parametrize("snippet", SOURCES, ids=str)
def test_every_source_is_read_as_it_stands(snippet: Snippet) -> None:
    text = yaml.safe_dump({"sources": yaml.safe_load(snippet.text)})
    (name,) = parse_alert_rules(text, str(snippet), environment(text)).sources
    page = PAGE.read_text(encoding="utf-8")
    assert re.search(rf"/hooks/{name}\b", page), f"nothing on the page sends to {name}"


def test_the_whole_file_is_read_as_it_stands() -> None:
    for snippet in [one for one in snippets(PAGE) if one.mark == "alerts"]:
        assert parse_alert_rules(snippet.text, str(snippet), environment(snippet.text)).rules


def test_every_kind_is_shown() -> None:
    shown = {source["kind"] for one in SOURCES for source in yaml.safe_load(one.text).values()}
    assert shown == {*GENUINE, "sns", "google-pubsub"}
    # The same kinds as there are: the schema's discriminator lists them.
    assert shown == set(ADAPTER.json_schema()["discriminator"]["mapping"])


def test_datadogs_payload_on_the_page_is_the_one_that_is_read() -> None:
    payload = named_json(PAGE)["datadog"]
    assert set(payload) == set(json.loads(GENUINE["datadog"].body))
    written = re.sub(r"\s+", " ", datadog.__doc__ or "")
    assert re.sub(r"\s+", " ", json.dumps(payload)) in written


def test_files_of_authorities_lie_beside_the_file_that_names_them(tmp_path: Path) -> None:
    text = """
sources:
  aws: {kind: sns, topics: ["arn:aws:sns:eu-central-1:123456789012:x"], ca_file: ca.pem, signing_ca_file: /etc/s.pem}
  pushed: {kind: google-pubsub, audience: a, service_accounts: [a@b], ca_file: keys/ca.pem}
  azure:
    kind: azure-monitor
    oidc: {issuers: [i], audiences: [a], jwks: "https://k.example/", claims: {appid: [x]}, ca_file: ca.pem}
"""
    (tmp_path / "alerts.yaml").write_text(text)
    found = load_alert_rules(tmp_path / "alerts.yaml", {}).sources
    aws = found["aws"]
    assert isinstance(aws, SnsSource)
    assert (aws.ca_file, aws.signing_ca_file) == (str(tmp_path / "ca.pem"), "/etc/s.pem")
    assert found["pushed"].ca_file == str(tmp_path / "keys/ca.pem")  # type: ignore[union-attr]
    assert found["azure"].oidc.ca_file == str(tmp_path / "ca.pem")  # type: ignore[union-attr]
