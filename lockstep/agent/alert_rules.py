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

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from lockstep.config import parse_as
from lockstep.errors import ConfigError
from lockstep.rules.alerts.intent import Action

HINT: Final = "`lockstep alerts test FILE` shows what a sample of an alert would do"


class RuleSettings(BaseModel):
    """One rule; the first that fits an alert decides what it starts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1, description="What the rule is called where it is told of.")] = ""
    source: Annotated[str | tuple[str, ...], Field(description="Sources that it is for, with * for any part.")] = "*"
    when: Annotated[
        Mapping[str, str | tuple[str, ...]],
        Field(description="Fields of the alert and what they must be: a text with * for any part, or several."),
    ] = {}
    model: Annotated[str, Field(description="The model; `{labels.model}` stands for that field of the alert.")] = ""
    version: Annotated[str, Field(description="The version to leave; whatever serves when left out.")] = ""
    cloud: Annotated[str, Field(description="Where the trouble was seen; anywhere when left out.")] = ""
    action: Annotated[Action, Field(description="What the alert starts.")] = Action.NOTIFY


class AlertRules(BaseModel):
    """The whole file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: Annotated[Mapping[str, Mapping[str, object]], Field(description="Who may send alerts, by name.")] = {}
    rules: Annotated[tuple[RuleSettings, ...], Field(description="What alerts start; the first that fits.")] = ()


def load_alert_rules(path: Path, environment: Mapping[str, str] | None = None) -> AlertRules:
    """The file at `path`; raises ConfigError naming file, line and key for whatever is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = (error.strerror if isinstance(error, OSError) else "it is not UTF-8 text") or error
        raise ConfigError(f"{path} cannot be read: {why}", hint="see agent.alerts in lockstep.yaml") from error
    return parse_alert_rules(text, str(path), os.environ if environment is None else environment)


def parse_alert_rules(text: str, source: str, environment: Mapping[str, str]) -> AlertRules:
    """The rules in `text`; `source` names it in errors."""
    return parse_as(AlertRules, text, source, environment, HINT)
