"""The report's page: one HTML file with its style and its picture inside, no script, nothing loaded from elsewhere.

Everything that comes from outside (reasons, names, errors, manifests) is escaped by the template engine.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lockstep.operations.audit.collect import Audit
from lockstep.operations.audit.picture import draw_timeline, embedded
from lockstep.rules.moments import show_span
from lockstep.rules.telling import show_weights

TEMPLATE: Final = "page.html"
#: Parts of a manifest in the order of a version's making; what else there is follows.
ORDER: Final = ("data", "code", "params", "metrics", "mlflow", "lineage", "signature_sha256", "parents", "env", "files")
NAMES: Final = {
    "data": "training data",
    "code": "code",
    "params": "parameters",
    "metrics": "metrics",
    "mlflow": "training run in MLflow",
    "lineage": "training run in MLflow",
    "signature_sha256": "signature's digest",
    "parents": "made from versions",
    "env": "environment",
    "environment": "environment",
    "files": "files",
}
OWN: Final = ("schema", "format", "name", "model")


@dataclass(frozen=True)
class Pictures:
    """The two timelines, as `draw_timeline` gives them: to scale, and change by change."""

    scale: str
    steps: str


def draw(audit: Audit) -> Pictures:
    """The report's pictures."""
    scale, steps = (
        draw_timeline(audit.history, audit.incidents, audit.since, audit.until, to_scale=to_scale)
        for to_scale in (True, False)
    )
    return Pictures(scale, steps)


def render(audit: Audit, pictures: Pictures) -> str:
    """The page."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters.update(
        span=lambda seconds: show_span(float(seconds)),
        entries=lambda numbers: ", ".join(map(str, numbers)) or "-",
        split=lambda weights: "no traffic" if weights is None else show_weights(weights),
        lineage=lineage,
    )
    # The pictures' own texts are escaped by what draws them; nothing else is taken as it is.
    scale, steps = Markup(embedded(pictures.scale, "scale")), Markup(embedded(pictures.steps, "steps"))  # noqa: S704
    return environment.get_template(TEMPLATE).render(a=audit.document, scale=scale, steps=steps)


def lineage(manifest: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """What a manifest tells of a version's making, as (what, text), in the order in which it was made."""
    if manifest is None:
        return []
    keys = [key for key in ORDER if key in manifest]
    keys += sorted(key for key in manifest if key not in ORDER and key not in OWN)
    return [(NAMES.get(key, key), text) for key in keys for text in _texts(key, manifest[key]) if text]


def _texts(key: str, value: Any) -> Iterable[str]:
    if key == "files":
        return (f"{len(value)} files: " + "; ".join(f"{one['path']} sha256 {one['sha256']}" for one in value),)
    if isinstance(value, list):
        return tuple(_flat(one) for one in value)
    return (_flat(value),)


def _flat(value: Any) -> str:
    """`key: value` pairs in one line; what is empty is left out."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_flat(one)}" for key, one in value.items() if one not in ("", None, {}, []))
    if isinstance(value, list):
        return "[" + ", ".join(map(_flat, value)) + "]"
    return value if isinstance(value, str) else json.dumps(value)
