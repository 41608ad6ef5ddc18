"""`lockstep alerts test`: what a sample would do is told without a secret, a network, or a trace."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from lockstep.agent import inbox, outbox
from lockstep.agent.alert_rules import AlertRules, load_alert_rules, parse_alert_rules
from lockstep.agent.group_commit import GroupCommit
from lockstep.agent.notice import Notice
from lockstep.agent.rehearsal import Unset, read_sample, rehearse
from lockstep.agent.taking import Taking, pace_of
from lockstep.cli import app
from lockstep.config import Config, load
from lockstep.errors import ConfigError, NotFoundError, RefusedError
from lockstep.rules.alerts.alert import Status
from lockstep.rules.alerts.intent import Action, Intent, State
from lockstep.rules.alerts.routing import route
from tests.deliveries import GENUINE

AMAZON = {
    "kind": "sagemaker",
    "region": "eu-central-1",
    "bucket": "acme",
    "role_arn": f"arn:aws:iam::{'1' * 12}:role/a",
}
ALERTS = """
sources:
  am: {kind: alertmanager, tokens: ["${A_TOKEN_THAT_IS_NOT_SET}"]}
  hook: {kind: grafana, secrets: ["${A_SECRET_THAT_IS_NOT_SET}"]}
rules:
  - {name: from elsewhere, source: hook, model: tumour, action: hold}
  - {name: errors, when: {alertname: Model*}, model: "{labels.model}", version: "{labels.version}", action: rollback}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    data = {
        "mlflow": {"tracking_uri": "http://127.0.0.1:1"},
        "ledger": "ledger.db",
        "clouds": {"aws": {**AMAZON, "image": "acme"}},
        "fleets": {"default": {"clouds": ["aws"]}},
        "models": {"tumour": {}},
        "agent": {"inbox": "inbox.db"},
    }
    (tmp_path / "alerts.yaml").write_text(ALERTS)
    path = tmp_path / "lockstep.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def opened(config: Path) -> Config:
    return load(config)


def run(config: Path, *arguments: str) -> str:
    ended = CliRunner().invoke(app, ["--config", str(config), "alerts", *arguments], catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    return ended.output


@pytest.mark.parametrize("kind", GENUINE)
def test_every_documented_body_can_be_tried_out(kind: str) -> None:
    sent = GENUINE[kind]
    if "ce-specversion" in {name.lower() for name in sent.headers}:
        pytest.skip("a CloudEvent in binary mode is in its headers")
    rules = AlertRules.model_validate({"sources": {"here": sent.settings}})
    alerts = read_sample(rules, "here", sent.body)
    heard = sent.source().receive(sent.delivery()).alerts
    assert [one.id for one in alerts] == [one.id for one in heard]


def test_the_source_is_found_or_asked_for(config: Path) -> None:
    rules = AlertRules.model_validate({"sources": {"a": GENUINE["alertmanager"].settings}})
    assert read_sample(rules, "", GENUINE["alertmanager"].body)[0].source == "a"
    with pytest.raises(NotFoundError, match="there is no source 'b'"):
        read_sample(rules, "b", b"{}")
    with pytest.raises(RefusedError, match="not clear"):
        read_sample(rules, "", b"{}")
    twice = AlertRules.model_validate({"sources": dict.fromkeys(("a", "b"), GENUINE["alertmanager"].settings)})
    with pytest.raises(RefusedError, match="a, b can read it"):
        read_sample(twice, "", GENUINE["alertmanager"].body)


def test_a_sample_is_shown_and_leaves_no_trace(config: Path, tmp_path: Path) -> None:
    sample = tmp_path / "sample.json"
    sample.write_bytes(GENUINE["alertmanager"].body)
    told = run(config, "test", str(sample))
    assert "not from elsewhere: its source is am, not hook" in told
    assert "rule: errors (model tumour, version 7)" in told
    assert "would do: rollback tumour, version 7: a new intent" in told
    assert "would do: nothing: it is over, says its sender" in told
    first, second = json.loads(run(config, "test", str(sample), "--source", "am", "--json"))["alerts"]
    assert (first["action"], first["decision"], first["model"], first["version"]) == (
        "rollback",
        "start",
        "tumour",
        "7",
    )
    assert second["decision"] == "nothing"
    assert not (tmp_path / "inbox.db").exists()
    assert not (tmp_path / "ledger.db").exists()


def test_a_word_that_is_not_known_is_told_of(config: Path, tmp_path: Path) -> None:
    source = {"kind": "generic", "tokens": ["${A}"], "mapping": {"id": "id", "title": "id", "status": "state"}}
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump({"sources": {"watch": source}}))
    sample = tmp_path / "sample.json"
    sample.write_text('{"id": "a", "state": "wobbly"}')
    note = "its status 'wobbly' is no word that is known, and was taken as firing"
    assert note in run(config, "test", str(sample))
    (shown,) = json.loads(run(config, "test", str(sample), "--json"))["alerts"]
    assert (shown["status"], note in shown["note"]) == ("firing", True)
    sample.write_text('{"id": "a", "state": "Recovered"}')
    (shown,) = json.loads(run(config, "test", str(sample), "--json"))["alerts"]
    assert (shown["status"], shown["note"]) == ("resolved", None)


def test_what_a_mistakes_hint_names_works_without_any_file(tmp_path: Path) -> None:
    missing = tmp_path / "nothing.yaml"
    with pytest.raises(ConfigError) as told:
        parse_alert_rules("rules: [{model: a, action: explode}]", "alerts.yaml", {})
    assert "'notify', 'hold', 'rollback-if-confirmed' or 'rollback'" in str(told.value)
    assert "`lockstep alerts schema`" in told.value.hint
    checker = jsonschema.Draft202012Validator(json.loads(run(missing, "schema")))
    assert not list(checker.iter_errors(yaml.safe_load(ALERTS)))
    assert list(checker.iter_errors({"rules": [{"model": "a", "action": "explode"}]}))


def test_what_the_agent_is_doing_now_counts(config: Path, tmp_path: Path) -> None:
    settings = opened(config)
    database = GroupCommit(settings.inbox, inbox.SCHEMA)
    now = time.time()
    running = Intent("i-1", "tumour", "", "", Action.ROLLBACK, State.RUNNING, "why", "alert:am", 3, now, asked="7")
    database.write(lambda connection: inbox.add_intent(connection, running))
    alerts = read_sample(
        AlertRules.model_validate({"sources": {"am": GENUINE["alertmanager"].settings}}),
        "am",
        GENUINE["alertmanager"].body,
    )
    rules = AlertRules.model_validate({"rules": [{"model": "{labels.model}", "version": "7", "action": "rollback"}]})
    (joined, *_) = rehearse(settings, rules, alerts, now)
    assert joined.told == "nothing more: it joins intent i-1 (running): rollback tumour, version 7"
    assert joined.action is None
    perhaps = replace(running, state=State.CONFIRMING, action=Action.ROLLBACK_IF_CONFIRMED)
    database.write(lambda connection: inbox.put_intent(connection, perhaps))
    (raising, *_) = rehearse(settings, rules, alerts, now)
    assert raising.told == "rollback tumour, version 7: raises intent i-1, which asked for less"
    mild = AlertRules.model_validate({"rules": [{"model": "tumour", "version": "7", "action": "notify"}]})
    (telling, *_) = rehearse(settings, mild, alerts, now)
    assert telling.told == "nothing more: it joins intent i-1 (confirming): rollback-if-confirmed tumour, version 7"
    done = replace(running, state=State.DONE, ended=now, moved=True, version="7" * 64)
    database.write(lambda connection: inbox.put_intent(connection, done))
    other = AlertRules.model_validate({"rules": [{"model": "tumour", "version": "6", "action": "rollback"}]})
    firing = [one for one in alerts if one.status is Status.FIRING]
    (answered,) = rehearse(settings, rules, tuple(firing), now + 1)
    assert answered.told == "nothing more: it joins intent i-1 (done): rollback tumour, version 7"
    (cooling,) = rehearse(settings, other, tuple(firing), now + 1)
    assert cooling.told.startswith("notify tumour: a new intent; tumour has just been rolled back")
    assert cooling.told.endswith("(a person is called)")
    with database.reading() as connection:
        assert inbox.newest_intents(connection, 10) == (done,)
    database.close()


def test_a_sample_that_the_agent_has_taken_comes_to_what_its_repetition_would(config: Path, tmp_path: Path) -> None:
    settings, body = opened(config), GENUINE["alertmanager"].body
    rules = load_alert_rules(tmp_path / "alerts.yaml", Unset({}))
    sample = tmp_path / "sample.json"
    sample.write_bytes(body)
    alert, now = read_sample(rules, "am", body)[0], time.time()
    way = route(alert, rules.as_rules(), {"tumour": ("aws",)})
    digest = hashlib.sha256(body).hexdigest()
    database = GroupCommit(settings.inbox, inbox.SCHEMA)
    taking = Taking(pace_of(settings))
    intent = database.write(lambda connection: taking.alert(connection, alert, way, digest, now - 7000.0)).answer

    def shown(state: State, **changes: Any) -> str:
        def change(connection: sqlite3.Connection) -> None:
            one = inbox.find_intent(connection, intent)
            assert one is not None
            inbox.put_intent(connection, replace(one, state=state, **changes))

        database.write(change)
        return run(config, "test", str(sample))

    had = f"the agent has taken this alert already (intent {intent}, "
    assert f"would do: nothing: {had}running); another id would make it a new one" in shown(State.RUNNING)
    assert f"nothing: {had}done)" in shown(State.DONE, ended=now - 6990.0, moved=True)
    assert f"{had}failed); while it still comes that is" in shown(State.FAILED, ended=now, moved=False)
    tried = shown(State.FAILED, ended=now - 100.0)
    assert f"would do: rollback tumour, version 7: a new intent; {had}failed), and tries once more" in tried
    (first, *_) = json.loads(run(config, "test", str(sample), "--json"))["alerts"]
    assert (first["action"], first["decision"]) == ("rollback", "start")
    waits = shown(State.NOTIFIED, action=Action.NOTIFY, ended=now)
    assert f"nothing: {had}notified); while it still comes it is tried once more after the cool-down" in waits
    over = replace(alert, status=Status.RESOLVED)
    database.write(lambda connection: taking.alert(connection, over, way, "over", now))
    assert f"nothing: {had}notified), and that it was resolved since" in run(config, "test", str(sample))
    with database.reading() as connection:
        assert len(inbox.newest_intents(connection, 10)) == 1
    database.close()


def test_dead_letters_are_listed_and_sent_again(config: Path) -> None:
    assert "no agent has accepted anything yet" in run(config, "dead-letters")
    database = GroupCommit(opened(config).inbox, inbox.SCHEMA)

    class Somebody:
        name = "webhook example"

        def wants(self, notice: Notice) -> bool:
            return True

        def send(self, notice: Notice) -> None:
            raise AssertionError

    notice = Notice("lockstep.rollback.split", "tumour: SPLIT", "", "tumour", 1000.0)
    database.write(lambda connection: outbox.put(connection, notice, [Somebody()]))
    database.write(lambda connection: connection.execute("UPDATE notice SET dead = 1, attempts = 9, error = 'no'"))
    assert "webhook example: lockstep.rollback.split: tumour: SPLIT (9 attempts: no)" in run(config, "dead-letters")
    listed = json.loads(run(config, "dead-letters", "--again", "--json"))
    assert (listed["again"], listed["dead_letters"][0]["id"]) == (1, notice.id)
    assert json.loads(run(config, "dead-letters", "--json"))["dead_letters"] == []
    database.close()
