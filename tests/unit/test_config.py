from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from lockstep.config import AgentNeeds, load, parse, schema
from lockstep.errors import ConfigError, NotFoundError

GOOD = """\
mlflow:
  tracking_uri: http://mlflow.example:5000
clouds:
  aws:
    kind: sagemaker
    image: 123456789012.dkr.ecr.eu-central-1.amazonaws.com/serving@sha256:0123
    region: eu-central-1
    bucket: models
    role_arn: arn:aws:iam::123456789012:role/serving
    secret_access_key: ${AWS_SECRET}
    access_key_id: ${AWS_KEY:-AKIAEXAMPLE}
fleets:
  default:
    clouds: [aws]
    rollout:
      steps: [5, 100]
models:
  churn: {}
"""


def wrong(text: str, **environment: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text, "lockstep.yaml", {"AWS_SECRET": "s3cret", **environment})
    assert caught.value.hint
    return str(caught.value)


def test_a_good_file_is_read_with_its_secrets_from_the_environment() -> None:
    config = parse(GOOD, "lockstep.yaml", {"AWS_SECRET": "s3cret"})
    dumped = config.clouds["aws"].model_dump()
    assert dumped["secret_access_key"].get_secret_value() == "s3cret"
    assert dumped["access_key_id"] == "AKIAEXAMPLE"
    assert "s3cret" not in repr(config)
    assert config.fleets["default"].rollout.steps == (5, 100)


def test_a_missing_variable_is_named_with_line_and_key() -> None:
    with pytest.raises(ConfigError, match=r"line 10: clouds\.aws\.secret_access_key: .*AWS_SECRET"):
        parse(GOOD, "lockstep.yaml", {})


AGENT = (
    GOOD
    + """\
agent:
  port: ${PORT}
  cool_down: ${PAUSE:-60}
  incident_window: 30
  tokens:
    alice: {role: operator, token: "${ALICE_TOKEN}"}
  webhooks:
    - {url: "https://hooks.example/lockstep", secrets: ["${WEBHOOK_SECRET}"]}
"""
)


def test_what_only_the_agent_needs_is_left_out_where_its_variable_is_not_set() -> None:
    environment = {"AWS_SECRET": "s3cret"}
    found = parse(AGENT, "lockstep.yaml", environment).agent
    assert (found.port, found.cool_down, found.incident_window) == (8420, 60.0, 30.0)
    assert (dict(found.tokens), found.webhooks) == ({}, ()), "nobody may sign in, rather than anybody"
    whole = {**environment, "PORT": "80", "ALICE_TOKEN": "a" * 20, "WEBHOOK_SECRET": "whsec_" + "a" * 32}
    assert parse(AGENT, "lockstep.yaml", whole) == parse(AGENT, "lockstep.yaml", whole, AgentNeeds.ALL)
    assert not parse(AGENT, "lockstep.yaml", {**whole, "ALICE_TOKEN": ""}).agent.tokens
    del whole["ALICE_TOKEN"]
    with pytest.raises(ConfigError, match=r"line 24: agent\.tokens\.alice\.token: .*ALICE_TOKEN is not set"):
        parse(AGENT, "lockstep.yaml", whole, AgentNeeds.ALL)
    with pytest.raises(ConfigError, match=r"line 20: agent\.port: .*PORT is not set"):
        parse(AGENT, "lockstep.yaml", environment, AgentNeeds.SETTINGS)
    with pytest.raises(ConfigError, match=r"agent\.colour"):
        parse(AGENT + "  colour: red\n", "lockstep.yaml", environment)


def test_a_token_whose_variable_is_empty_is_named_by_it() -> None:
    text = GOOD + "agent:\n  tokens:\n    alice: {role: operator, token: '${ALICE}'}\n"
    with pytest.raises(
        ConfigError, match=r"agent\.tokens\.alice\.token: environment variable ALICE is empty"
    ) as caught:
        parse(text, "lockstep.yaml", {"AWS_SECRET": "x", "ALICE": ""}, AgentNeeds.ALL)
    assert caught.value.hint == "export ALICE=$(openssl rand -hex 24)"
    with pytest.raises(ConfigError, match=r"agent\.port: .* \(by environment variable ALICE\)") as caught:
        parse(GOOD + "agent: {port: '${ALICE}'}\n", "lockstep.yaml", {"AWS_SECRET": "x", "ALICE": "none of it"})
    assert "none of it" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("region: eu-central-1\n", "regio: eu-central-1\n", "line 7: clouds.aws.regio"),
        ("    bucket: models\n", "", "line 4: clouds.aws.bucket"),
        ("kind: sagemaker", "kind: sagemakr", "line 4: clouds.aws"),
        ("clouds: [aws]", "clouds: [aws, gpc]", "'gpc'"),
        ("churn: {}", "churn: {fleet: other}", "'other'"),
        ("  aws:\n", "  mlflow:\n", "clouds.mlflow: a cloud cannot be called mlflow"),
        ("steps: [5, 100]", "steps: [5, x]", "line 16: fleets.default.rollout.steps.1"),
        *(
            ("steps: [5, 100]", f"approval_seconds: {odd}", "line 16: fleets.default.rollout.approval_seconds")
            for odd in (".inf", "1.0e+300", ".nan")
        ),
        ("region: eu-central-1\n", "region: eu-central-1\n    call_timeout: .inf\n", "line 8: clouds.aws.call_timeout"),
        ("mlflow:\n", "mlflow: [\n", "not valid YAML"),
    ],
)
def test_a_mistake_is_named_with_line_and_key(old: str, new: str, expected: str) -> None:
    assert old in GOOD
    message = wrong(GOOD.replace(old, new, 1))
    assert expected in message
    assert message.startswith("lockstep.yaml")


@pytest.mark.parametrize("text", ["", "- a\n", "42\n"])
def test_a_file_that_is_no_mapping_is_refused(text: str) -> None:
    assert "mapping" in wrong(text)


def test_a_missing_file_says_how_to_name_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        load(tmp_path / "nothing.yaml")
    assert "LOCKSTEP_CONFIG" in caught.value.hint


def test_an_unknown_model_lists_those_that_there_are() -> None:
    config = parse(GOOD, "lockstep.yaml", {"AWS_SECRET": "x"})
    with pytest.raises(NotFoundError, match="churn"):
        config.model("chrun")


def test_the_schema_accepts_the_good_file_and_refuses_a_typo() -> None:
    checker = jsonschema.Draft202012Validator(json.loads(json.dumps(schema())))
    data = yaml.safe_load(GOOD)
    assert not list(checker.iter_errors(data))
    data["fleets"]["default"]["cluods"] = []
    assert list(checker.iter_errors(data))
