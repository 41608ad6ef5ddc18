"""alerts.yaml: who may send alerts, and what they start; read as lockstep.yaml is.

sources:
  grafana: {kind: grafana, secrets: ["${GRAFANA_SECRET}"]}
rules:
  - name: churn is slow
    when: {alertname: [ChurnSlow, ChurnErrors], severity: critical}
    model: "{labels.model}"
    action: rollback-if-confirmed
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Final

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from lockstep.agent.source_settings import SourceSettings
from lockstep.agent.written_secrets import written_secrets
from lockstep.config import parse_as
from lockstep.errors import ConfigError
from lockstep.rules.alerts.intent import Action
from lockstep.rules.alerts.reading import text as text_of
from lockstep.rules.alerts.routing import PLACE, Rule, fits

LOG: Final = logging.getLogger("lockstep.agent")
#: A name that an address can hold as it is: not what is taken for a path, or for the folder above.
NAME: Final = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_.-]+", re.ASCII)
HINT: Final = "`lockstep alerts schema` prints every key and what may stand there; docs/alerts.md has each source"


def _listed(value: object) -> object:
    return value if isinstance(value, list | tuple | dict) else (value,)


def _as_text(value: object) -> object:
    """A number or a truth value as an alert's field holds it: `version: 7` means the text."""
    return text_of(value) if isinstance(value, bool | int | float) else value


Text = Annotated[str, BeforeValidator(_as_text)]
Patterns = Annotated[tuple[Text, ...], BeforeValidator(_listed, json_schema_input_type=str | tuple[str, ...])]


class RuleSettings(BaseModel):
    """One rule; the first that fits an alert decides what it starts."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: Annotated[str, Field(min_length=1, description="What the rule is called where it is told of.")] = ""
    source: Annotated[Patterns, Field(description="Sources that it is for, with * for any part.")] = ("*",)
    when: Annotated[
        Mapping[str, Patterns],
        Field(description="Fields of the alert and what they must be: a text with * for any part, or several."),
    ] = {}
    model: Annotated[str, Field(description="The model; `{labels.model}` stands for that field of the alert.")] = ""
    version: Annotated[Text, Field(description="The version to leave; whatever serves when left out.")] = ""
    cloud: Annotated[str, Field(description="Where the trouble was seen; anywhere when left out.")] = ""
    action: Annotated[Action, Field(description="What the alert starts.")] = Action.NOTIFY

    @model_validator(mode="after")
    def _has_a_target(self) -> RuleSettings:
        if self.action is not Action.NOTIFY and not self.model:
            raise ValueError(f"a rule whose action is {self.action.value} says which model: model: NAME")
        for template in (self.model, self.version, self.cloud):
            if "{" in PLACE.sub("", template) or "}" in PLACE.sub("", template):
                raise ValueError(f"{template!r} is no template: {{labels.model}} stands for a field of the alert")
        return self

    def as_rule(self, name: str) -> Rule:
        """The rule as it decides, called `name` if it has no name of its own."""
        return Rule(self.name or name, self.source, self.when, self.model, self.version, self.cloud, self.action)


class AlertRules(BaseModel):
    """The whole file."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    sources: Annotated[
        Mapping[str, SourceSettings],
        Field(description="Who may send alerts, by name: letters, digits, -, _ and . as it stands in its address."),
    ] = {}
    rules: Annotated[tuple[RuleSettings, ...], Field(description="What alerts start; the first that fits.")] = ()

    @field_validator("sources")
    @classmethod
    def _can_be_reached(cls, value: Mapping[str, SourceSettings]) -> Mapping[str, SourceSettings]:
        for name in value:
            if not NAME.fullmatch(name):
                raise PydanticCustomError(
                    "source_name",
                    "{name} is no name of a source, whose hook is /hooks/NAME: use letters, digits, -, _ and .",
                    {"path": ("sources", name), "name": repr(name)},
                )
        return value

    @model_validator(mode="after")
    def _sources_of_rules_exist(self) -> AlertRules:
        for number, rule in enumerate(self.rules):
            for pattern in rule.source:
                if pattern != "*" and not any(fits(pattern, name) for name in self.sources):
                    raise PydanticCustomError(
                        "unknown_source",
                        "there is no source {name} under sources: (there: {known}), so the rule would never fit",
                        {
                            "path": ("rules", number, "source"),
                            "name": repr(pattern),
                            "known": ", ".join(self.sources) or "none",
                        },
                    )
        return self

    def as_rules(self) -> tuple[Rule, ...]:
        """The rules as they decide; one without a name is told of by its number, from 1."""
        return tuple(one.as_rule(f"rule {number}") for number, one in enumerate(self.rules, 1))

    def unknown(self, models: Mapping[str, Collection[str]]) -> Iterator[str]:
        """What rules name that is not configured, in sentences; `models` are the configured ones with their clouds."""
        for rule in self.as_rules():
            if not rule.model or PLACE.search(rule.model):
                continue
            if rule.model not in models:
                known = ", ".join(sorted(models)) or "none"
                yield f"{rule.name}: model {rule.model!r} is not configured (there: {known}); it only tells people"
            elif rule.cloud and not PLACE.search(rule.cloud) and rule.cloud not in models[rule.model]:
                yield f"{rule.name}: cloud {rule.cloud!r} does not serve {rule.model}"


def load_alert_rules(path: Path, environment: Mapping[str, str] | None = None) -> AlertRules:
    """The file at `path`; raises ConfigError naming file, line and key for whatever is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = (error.strerror if isinstance(error, OSError) else "it is not UTF-8 text") or error
        raise ConfigError(f"{path} cannot be read: {why}", hint="see agent.alerts in lockstep.yaml") from error
    rules = parse_alert_rules(text, str(path), os.environ if environment is None else environment)
    folder = path.resolve().parent
    return rules.model_copy(update={"sources": {name: one.placed(folder) for name, one in rules.sources.items()}})


def parse_alert_rules(text: str, source: str, environment: Mapping[str, str]) -> AlertRules:
    """The rules in `text`; `source` names it in errors. That a secret stands in the file itself is logged."""
    rules = parse_as(AlertRules, text, source, environment, HINT)
    for path in written_secrets(yaml.safe_load(text).get("sources") or {}):
        key = ".".join(map(str, ("sources", *path)))
        LOG.warning('%s: %s: a secret stands in the file: write "${NAME}" in its place', source, key)
    return rules
