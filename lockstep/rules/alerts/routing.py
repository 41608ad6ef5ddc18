"""From an alert to what it is about and what it may start: the first rule that fits decides.

Nothing in an alert is believed by itself: a model must be configured, a version looks like one, and where that is not
so people are told and nothing is changed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from lockstep.rules.alerts.alert import Alert
from lockstep.rules.alerts.intent import Action

PLACE: Final = re.compile(r"\{([A-Za-z0-9_./-]+)\}")
VERSION: Final = re.compile(r"@?[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
SHOWN: Final = 80  # characters of a value of somebody else's that are told


@dataclass(frozen=True)
class Rule:
    """One rule. `when` gives each field's patterns, `model`, `version` and `cloud` are templates: `{labels.model}`."""

    name: str
    sources: tuple[str, ...] = ("*",)
    when: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    model: str = ""
    version: str = ""
    cloud: str = ""
    action: Action = Action.NOTIFY


@dataclass(frozen=True)
class Route:
    """What an alert is about and may start; `told` says why it is no more, `missed` why rules before did not fit."""

    rule: str
    model: str = ""
    version: str = ""
    cloud: str = ""
    action: Action = Action.NOTIFY
    told: str = ""
    missed: tuple[tuple[str, str], ...] = ()


def route(alert: Alert, rules: Sequence[Rule], models: Mapping[str, Collection[str]]) -> Route:
    """The route of an alert; `models` are the configured ones with their clouds."""
    missed: list[tuple[str, str]] = []
    for rule in rules:
        why = mismatch(alert, rule)
        if not why:
            return _target(alert, rule, models, tuple(missed))
        missed.append((rule.name, why))
    return Route("", told="no rule fits it", missed=tuple(missed))


def mismatch(alert: Alert, rule: Rule) -> str:
    """Why the rule is not for this alert; "" when it is."""
    if not any(fits(pattern, alert.source) for pattern in rule.sources):
        return f"its source is {alert.source}, not {' or '.join(rule.sources)}"
    for name, patterns in rule.when.items():
        found = value_of(alert, name)
        if found is None:
            return f"it has no field {name}"
        if not any(fits(pattern, found) for pattern in patterns):
            return f"{name} is {shortened(found)!r}, not {' or '.join(patterns)}"
    return ""


def _target(
    alert: Alert, rule: Rule, models: Mapping[str, Collection[str]], missed: tuple[tuple[str, str], ...]
) -> Route:
    model, lacking = filled(rule.model, alert)
    if not model or model not in models:
        told = "the rule names no model"
        if lacking:
            told = f"it has no field {lacking}, which names the model"
        elif model:
            told = f"model {shortened(model)!r} is not configured"
        return Route(rule.name, action=Action.NOTIFY, told="" if not rule.model else told, missed=missed)
    version, _ = filled(rule.version, alert)
    if version and not VERSION.fullmatch(version):
        return Route(rule.name, model, told=f"{shortened(version)!r} names no version", missed=missed)
    cloud, _ = filled(rule.cloud, alert)
    told = ""
    if cloud and cloud not in models[model]:
        told, cloud = f"cloud {shortened(cloud)!r} does not serve {model}", ""
    return Route(rule.name, model, version, cloud, rule.action, told, missed)


def filled(template: str, alert: Alert) -> tuple[str, str]:
    """The template with the alert's fields in it, and the first field that it lacks: then the text is empty."""
    lacking = [name for name in PLACE.findall(template) if not value_of(alert, name)]
    if lacking:
        return "", lacking[0]
    return PLACE.sub(lambda match: value_of(alert, match[1]) or "", template).strip(), ""


def value_of(alert: Alert, name: str) -> str | None:
    """A field of the alert by its name: one of `fields`, a part of the alert itself, or a label; None for none."""
    key = name.lower()
    own = {
        "source": alert.source,
        "id": alert.id,
        "incident": alert.incident,
        "status": alert.status.value,
        "title": alert.title,
        "text": alert.text,
        "severity": alert.severity,
    }
    for found in (alert.fields.get(key), own.get(key), alert.fields.get(f"labels.{key}")):
        if found is not None:
            return found
    return None


def fits(pattern: str, value: str) -> bool:
    """Whether the whole value is as the pattern, in which * stands for any text; in linear time, whatever the value."""
    first, *others = pattern.split("*")
    if not others:
        return value == pattern
    *middle, last = others
    if not value.startswith(first):
        return False
    place = len(first)
    for part in middle:
        found = value.find(part, place)
        if found < 0:
            return False
        place = found + len(part)
    return len(value) - place >= len(last) and value.endswith(last)


def shortened(value: str) -> str:
    """A value that others wrote, short enough for a sentence."""
    return well_formed(value if len(value) <= SHOWN else value[: SHOWN - 1] + "…")


def well_formed(value: str) -> str:
    """The text without halves of characters, which JSON can hold and no file or database."""
    return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")
