"""Where an alert leads: the first rule that fits, and nothing that an alert says is believed by itself."""

from __future__ import annotations

import json
from dataclasses import replace
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.agent.alert_rules import parse_alert_rules
from lockstep.errors import ConfigError
from lockstep.rules.alerts.alert import Alert, Status
from lockstep.rules.alerts.intent import Action
from lockstep.rules.alerts.routing import Rule, fits, route

MODELS = {"churn": ("aws", "gcp")}
ALERT = Alert(
    *("am", "a-1", "i-1", Status.FIRING, "Churn is slow"),
    severity="critical",
    fields={"labels.alertname": "Slow", "labels.model": "churn", "labels.version": "7", "labels.cloud": "aws"},
)
RULE = Rule(
    "slow",
    ("am*",),
    {"alertname": ("Slow", "Broken")},
    "{labels.model}",
    "{labels.version}",
    "{cloud}",
    Action.ROLLBACK,
)


def fields(**changed: str) -> Alert:
    return replace(ALERT, fields={**ALERT.fields, **{f"labels.{name}": value for name, value in changed.items()}})


def test_the_first_rule_that_fits_decides() -> None:
    other = Rule("other", ("grafana",))
    strict = Rule("strict", when={"severity": ("warning",), "alertname": ("Slow",)})
    found = route(ALERT, [other, strict, RULE, replace(RULE, name="later")], MODELS)
    assert (found.rule, found.model, found.version, found.cloud) == ("slow", "churn", "7", "aws")
    assert (found.action, found.told) == (Action.ROLLBACK, "")
    assert found.missed == (
        ("other", "its source is am, not grafana"),
        ("strict", "severity is 'critical', not warning"),
    )


def test_no_rule_only_tells_people() -> None:
    found = route(ALERT, [], MODELS)
    assert (found.rule, found.action, found.told) == ("", Action.NOTIFY, "no rule fits it")


@pytest.mark.parametrize(
    ("alert", "told"),
    [
        (fields(model="fraud"), "model 'fraud' is not configured"),
        (fields(model="../churn"), "model '../churn' is not configured"),
        (fields(model=""), "it has no field labels.model, which names the model"),
        (fields(version="7; rm -rf"), "'7; rm -rf' names no version"),
        (fields(version="x" * 500), f"'{'x' * 79}…' names no version"),
    ],
)
def test_a_target_that_cannot_be_is_told_and_changes_nothing(alert: Alert, told: str) -> None:
    found = route(alert, [RULE], MODELS)
    assert (found.action, found.told) == (Action.NOTIFY, told)


def test_a_version_or_cloud_that_is_not_told_is_whatever_serves_anywhere() -> None:
    found = route(fields(version="", cloud=""), [RULE], MODELS)
    assert (found.version, found.cloud, found.action) == ("", "", Action.ROLLBACK)
    elsewhere = route(fields(cloud="moon"), [RULE], MODELS)
    assert (elsewhere.cloud, elsewhere.action, elsewhere.told) == (
        "",
        Action.ROLLBACK,
        "cloud 'moon' does not serve churn",
    )


def test_a_field_that_is_missing_fits_no_pattern() -> None:
    assert route(ALERT, [Rule("region", when={"region": ("*",)})], MODELS).missed == (
        ("region", "it has no field region"),
    )


@given(st.text("ab*", max_size=8), st.text("ab", max_size=12))
def test_patterns_are_as_shells_know_them(pattern: str, value: str) -> None:
    assert fits(pattern, value) == fnmatchcase(value, pattern)


@given(st.text("ab[?.", max_size=6))
def test_nothing_but_the_star_is_special(value: str) -> None:
    assert fits(value, value)


def test_a_hostile_value_takes_no_time() -> None:
    assert not fits("*a" * 200 + "*b", "a" * 200_000)


def test_rules_are_read_with_line_and_key() -> None:
    text = """
rules:
  - name: all
    when: {alertname: Slow}
    model: churn
    action: rollback
  - {model: churn, action: hold}
"""
    first, second = parse_alert_rules(text, "alerts.yaml", {}).as_rules()
    assert (first.name, first.when, first.sources) == ("all", {"alertname": ("Slow",)}, ("*",))
    assert (second.name, second.action) == ("rule 2", Action.HOLD)


def test_what_yaml_takes_for_a_number_is_the_text_that_an_alert_holds() -> None:
    text = "rules:\n  - {model: churn, version: 7, when: {priority: 1, muted: [false, 2.5]}, action: hold}\n"
    (rule,) = parse_alert_rules(text, "alerts.yaml", {}).as_rules()
    assert (rule.version, rule.when) == ("7", {"priority": ("1",), "muted": ("false", "2.5")})


def test_what_a_rule_names_and_is_not_configured_is_told_when_the_agent_starts() -> None:
    text = """
rules:
  - {model: churn, cloud: gcp, action: hold}
  - {model: "{labels.model}", cloud: moon, action: hold}
  - {name: misspelt, model: chrun, action: rollback}
  - {model: churn, cloud: azure, action: hold}
  - {when: {a: b}}
"""
    assert list(parse_alert_rules(text, "alerts.yaml", {}).unknown(MODELS)) == [
        "misspelt: model 'chrun' is not configured (there: churn); it only tells people",
        "rule 4: cloud 'azure' does not serve churn",
    ]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("", "environment variable TOKEN is empty; at least 16 characters are needed"),
        ("short", "environment variable TOKEN is 5 characters long; at least 16 characters are needed"),
    ],
)
def test_a_secret_that_is_none_is_named_by_its_variable(given: str, told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_alert_rules("sources:\n  am: {kind: alertmanager, tokens: ['${TOKEN}']}\n", "a.yaml", {"TOKEN": given})
    assert str(raised.value) == f"a.yaml, line 2: sources.am.tokens.0: {told}"
    assert raised.value.hint == "export TOKEN=$(openssl rand -hex 24)"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "rules:\n  - {action: rollback}\n",
            "alerts.yaml, line 2: rules.0: a rule whose action is rollback says which",
        ),
        ("rules:\n  - model: '{labels.model'\n", "alerts.yaml, line 2: rules.0: '{labels.model' is no template"),
        ("rules:\n  - model: a\n    action: explode\n", "alerts.yaml, line 3: rules.0.action"),
        ("rules:\n  - modle: a\n", "alerts.yaml, line 2: rules.0.modle"),
        ("rules:\n  - {model: a, source: b*}\n", "alerts.yaml, line 2: rules.0.source: there is no source 'b*'"),
        ("rules: 1\n", "alerts.yaml, line 1: rules: a list is expected"),
        ("sources:\n  a: {tokens: []}\n", "alerts.yaml, line 2: sources.a: it has no kind"),
        ("- 1\n", "alerts.yaml, line 1: a mapping is expected"),
        *(
            (
                f"rules: []\nsources:\n  {json.dumps(name)}: {{kind: alertmanager, tokens: [0123456789abcdef]}}\n",
                f"alerts.yaml, line 3: sources.{name}: {name!r} is no name of a source",
            )
            for name in ("a/b", "", "a\nb", "..", "a b", "\u00fc", "%41", "a\n")
        ),
    ],
)
def test_mistakes_are_named(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_alert_rules(text, "alerts.yaml", {})
    assert str(raised.value).startswith(problem)


def test_a_secret_in_the_file_is_told_but_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    secret = "0123456789abcdef0123"
    text = f"sources:\n  am: {{kind: alertmanager, tokens: ['{secret}', '${{TOKEN}}']}}\n"
    parse_alert_rules(text, "alerts.yaml", {"TOKEN": secret})
    assert "alerts.yaml: sources.am.tokens.0: a secret stands in the file" in caplog.text
    assert len(caplog.records) == 1
    assert secret not in caplog.text
