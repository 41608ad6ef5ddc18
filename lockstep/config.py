"""lockstep.yaml: clouds, fleets and models in one readable file that lives in Git.

Secrets are named, not written: `${NAME}` stands for an environment variable and `${NAME:-text}` for one with a
default. A mistake is reported with the line and the key. `schema()` is the JSON Schema for editors.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from lockstep.agent_settings import AgentSettings
from lockstep.clouds.azureml import AzureMLSettings
from lockstep.clouds.sagemaker import SageMakerSettings
from lockstep.clouds.vertex import VertexSettings
from lockstep.errors import ConfigError, NotFoundError
from lockstep.mistakes import told
from lockstep.rules.approval import Gate
from lockstep.rules.judge import Limits
from lockstep.rules.limits import ServiceLimits
from lockstep.stores.key_settings import KeySettings
from lockstep.stores.ledger import AnyLedger, LedgerSettings
from lockstep.stores.ledger.settings import SPOOL
from lockstep.stores.outcomes import AnyOutcomes, FileOutcomes

P = TypeVar("P", bound=BaseModel)
DEFAULT_PATH: Final = "lockstep.yaml"
PATH_VARIABLE: Final = "LOCKSTEP_CONFIG"
STORE: Final = "mlflow"
#: Fields of clouds that name files.
FILES: Final = ("credentials_file", "ca_file")
REFERENCE: Final = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")

#: Keys under `agent:` with secrets, which the agent alone uses.
AGENT_SECRETS: Final = frozenset({"notify", "webhooks", "tokens"})


class AgentNeeds(Enum):
    """Which keys under `agent:` a command reads: from others an unset variable keeps it from nothing."""

    NOTHING = frozenset[str]()
    SETTINGS = frozenset(AgentSettings.model_fields) - AGENT_SECRETS
    ALL = frozenset(AgentSettings.model_fields)


#: A new cloud joins here, by its settings.
AnyCloud = Annotated[SageMakerSettings | AzureMLSettings | VertexSettings, Field(discriminator="kind")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class MlflowSettings(_Part):
    """The canonical version store."""

    tracking_uri: Annotated[str, Field(description="Address of the MLflow server.")]
    timeout: Annotated[float, Field(gt=0, description="Seconds that one call may take.")] = 10.0
    rollback_timeout: Annotated[
        float,
        Field(gt=0, description="Seconds that a rollback waits for it; then it goes by what was last known."),
    ] = 3.0


class RolloutSettings(_Part):
    """How a canary moves, and what stops it."""

    steps: Annotated[tuple[int, ...], Field(description="Per cents of traffic for the canary, rising to 100.")] = (
        5,
        25,
        50,
        100,
    )
    step_seconds: Annotated[float, Field(ge=0, description="Least time at a step, in seconds.")] = 300.0
    patience: Annotated[
        float, Field(gt=0, description="Longest time at a step without a verdict, in seconds; then it is taken back.")
    ] = 3600.0
    soak_seconds: Annotated[
        float,
        Field(
            ge=0,
            description="Time as champion, in seconds and with nothing that judges it bad, by which a version earns "
            "known-good.",
        ),
    ] = 3600.0
    look_every: Annotated[float, Field(gt=0, description="Seconds between two looks at the metrics.")] = 10.0
    min_requests: Annotated[
        int, Field(ge=1, description="Canary requests at a step without which there is no verdict.")
    ] = 50
    alpha: Annotated[
        float, Field(gt=0, lt=0.5, description="Probability at most of taking back a canary that is no worse.")
    ] = 0.05
    caution: Annotated[
        float, Field(ge=1, description="Factor on the evidence asked for; raise it for traffic that comes in bursts.")
    ] = 1.5
    latency_ratio: Annotated[
        float, Field(ge=1, description="Largest p95 latency, as a multiple of the stable one.")
    ] = 2.0
    latency_slack: Annotated[float, Field(ge=0, description="Seconds added to the latency limit.")] = 0.1

    latency_requests: Annotated[
        int, Field(ge=1, description="Canary requests on a cloud before its p95 latency is judged.")
    ] = 100
    approval: Annotated[Gate, Field(description="Where a rollout waits for a person's word.")] = Gate.NONE
    approval_seconds: Annotated[
        float,
        Field(
            gt=0,
            le=366 * 86400,
            description="Longest wait for that word, in seconds; then the canary is taken back.",
        ),
    ] = 3600.0

    def limits(self) -> Limits:
        """The judge's limits."""
        return Limits(
            alpha=self.alpha,
            caution=self.caution,
            min_requests=self.min_requests,
            latency_ratio=self.latency_ratio,
            latency_slack=self.latency_slack,
            latency_requests=self.latency_requests,
        )


class MonitorSettings(_Part):
    """When the version that serves is in breach."""

    window: Annotated[float, Field(gt=0, description="Seconds that a look covers.")] = 600.0
    min_requests: Annotated[int, Field(ge=1, description="Requests without which nothing is said.")] = 50
    max_error_rate: Annotated[float, Field(gt=0, le=1, description="Largest share of failed requests.")] = 0.05
    max_bad_outcomes: Annotated[float, Field(gt=0, le=1, description="Largest share of bad outcomes.")] = 0.2
    max_latency: Annotated[
        float | None, Field(gt=0, description="Largest p95 latency in seconds; no limit when left out.")
    ] = None

    def limits(self) -> ServiceLimits:
        """The same as the rules take them."""
        return ServiceLimits(self.min_requests, self.max_error_rate, self.max_bad_outcomes, self.max_latency)


class ReconcileSettings(_Part):
    """What reconciling may change without a person's word, at one time and over all models."""

    max_models: Annotated[int, Field(ge=0, description="Models that may be changed at once.")] = 3
    max_shifts: Annotated[int, Field(ge=0, description="Shifts of traffic that may be made at once.")] = 6
    every: Annotated[
        float,
        Field(
            gt=0,
            description="Seconds between two scheduled runs: where they are set up, the next try of a cloud.",
        ),
    ] = 300.0


class FleetSettings(_Part):
    """Which clouds serve a model, in which order, within which limits."""

    clouds: Annotated[tuple[str, ...], Field(min_length=1, description="Clouds that serve, by name.")]
    order: Annotated[Literal["cheapest", "listed"], Field(description="Which cloud a canary tries first.")] = "cheapest"
    rollout: RolloutSettings = RolloutSettings()
    monitor: MonitorSettings = MonitorSettings()
    reconcile: ReconcileSettings = ReconcileSettings()


class ModelSettings(_Part):
    """One model: its fleet, who answers for it, where its outcomes are kept, and rows to probe it with."""

    fleet: Annotated[str, Field(description="Name of the fleet that serves it.")] = "default"
    owner: Annotated[str, Field(description="Who is told when somebody changed it by hand.")] = ""
    outcomes: Annotated[AnyOutcomes | None, Field(description="Where outcomes are kept.")] = None
    probe: Annotated[
        tuple[dict[str, object], ...],
        Field(description="Rows by column name to ask an endpoint which version answers; made up when left out."),
    ] = ()


class Config(_Part):
    """The whole file."""

    mlflow: MlflowSettings
    ledger: Annotated[
        AnyLedger, Field(description="The record of what was done: a mapping, or its database alone as text.")
    ] = LedgerSettings()
    keys: KeySettings = KeySettings()
    state: Annotated[
        str | None,
        Field(
            min_length=1,
            description="Folder for what was last known of each model, for when MLflow is down; `state` beside the "
            "ledger's file or spool when left out.",
        ),
    ] = None
    clouds: Annotated[Mapping[str, AnyCloud], Field(min_length=1, description="Clouds by name.")]
    fleets: Annotated[Mapping[str, FleetSettings], Field(min_length=1, description="Fleets by name.")]
    models: Annotated[Mapping[str, ModelSettings], Field(description="Models by their name in MLflow.")] = {}
    agent: AgentSettings = AgentSettings()

    @model_validator(mode="after")
    def _names_exist(self) -> Config:
        if STORE in self.clouds:
            raise PydanticCustomError(
                "taken_name",
                "a cloud cannot be called {name}: that is the store of versions, in all that is told; rename it",
                {"path": ("clouds", STORE), "name": STORE},
            )
        for name, fleet in self.fleets.items():
            for place, cloud in enumerate(fleet.clouds):
                if cloud not in self.clouds:
                    raise _unknown_name(("fleets", name, "clouds", place), "cloud", cloud, self.clouds)
        for name, model in self.models.items():
            if model.fleet not in self.fleets:
                place_of_fleet = ("models", name, "fleet") if "fleet" in model.model_fields_set else ("models", name)
                raise _unknown_name(place_of_fleet, "fleet", model.fleet, self.fleets)
        return self

    @property
    def state_folder(self) -> Path:
        """Where what was last known of models is kept."""
        if self.state is not None:
            return Path(self.state)
        beside = self.ledger.database if self.ledger.is_file else self.ledger.spool or SPOOL
        return Path(beside).with_name("state")

    @property
    def inbox(self) -> Path:
        """SQLite file of what the agent accepted."""
        return Path(self.agent.inbox) if self.agent.inbox is not None else self.state_folder / "inbox.db"

    def model(self, name: str) -> ModelSettings:
        """Settings of a model; raises NotFoundError listing the models there are."""
        if name not in self.models:
            known = ", ".join(sorted(self.models)) or "none"
            raise NotFoundError(
                f"model {name!r} is not in the configuration (there: {known})",
                hint=f"add it under models: in {DEFAULT_PATH}",
            )
        return self.models[name]


def load(
    path: Path | None = None,
    environment: Mapping[str, str] | None = None,
    agent: AgentNeeds = AgentNeeds.NOTHING,
) -> Config:
    """Read the file at `path`, else the one that LOCKSTEP_CONFIG names, else ./lockstep.yaml.

    A key under `agent:` that is not needed is left out where a variable in it is not set: a rollback by hand must not
    want the agent's tokens. Raises ConfigError naming file, line and key for whatever is wrong.
    """
    environment = os.environ if environment is None else environment
    chosen = path or Path(environment.get(PATH_VARIABLE, DEFAULT_PATH))
    try:
        text = chosen.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = (error.strerror if isinstance(error, OSError) else "it is not UTF-8 text") or error
        raise ConfigError(
            f"{chosen} cannot be read: {why}",
            hint=f"run in the folder that holds it, pass --config, or set {PATH_VARIABLE}",
        ) from error
    config = parse(text, str(chosen), environment, agent)
    return _placed(config, chosen.resolve().parent)


def _placed(config: Config, folder: Path) -> Config:
    """Paths beside the file, not beside whoever happens to read it: a worker and a shell must find the same."""

    def place(path: str) -> str:
        return str(folder / Path(path).expanduser())

    def placed(part: P, fields: Iterable[str]) -> P:
        given = {name: getattr(part, name, None) for name in fields}
        return part.model_copy(update={name: place(path) for name, path in given.items() if path})

    models = {}
    for name, model in config.models.items():
        outcomes = model.outcomes
        if isinstance(outcomes, FileOutcomes):
            model = model.model_copy(update={"outcomes": placed(outcomes, ("path", "requests"))})
        models[name] = model
    clouds = {name: placed(cloud, FILES) for name, cloud in config.clouds.items()}
    ledger, keys = config.ledger.placed(folder), placed(config.keys, ("folder",))
    agent = placed(config.agent, ("alerts", "inbox"))
    state = {"state": place(config.state)} if config.state else {}
    return config.model_copy(
        update={"ledger": ledger, "keys": keys, "clouds": clouds, "models": models, "agent": agent, **state}
    )


def parse(text: str, source: str, environment: Mapping[str, str], agent: AgentNeeds = AgentNeeds.NOTHING) -> Config:
    """The configuration in `text`; `source` names it in errors, `agent` is as for `load`."""
    return parse_as(
        Config,
        text,
        source,
        environment,
        "`lockstep schema` prints the JSON Schema that editors use to complete and check this file",
        {"agent": AgentNeeds.ALL.value - agent.value},
    )


def parse_as(
    form: type[P],
    text: str,
    source: str,
    environment: Mapping[str, str],
    hint: str,
    unneeded: Mapping[str, Collection[str]] | None = None,
) -> P:
    """The YAML in `text` as a `form`, with `${NAME}` replaced; raises ConfigError naming `source`, line and key.

    `unneeded` names keys by the mapping that they stand in: those with an unset variable are left out.
    """
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
        problem = error.problem if isinstance(error, yaml.MarkedYAMLError) else " ".join(str(error).split())
        line = mark.line + 1 if mark else 1
        raise ConfigError(f"{source}, line {line}: not valid YAML: {problem}", hint="mend the line") from error
    if not isinstance(data, dict) or tree is None:
        raise ConfigError(f"{source}, line 1: a mapping is expected", hint="start from the example in the README")
    for part, keys in (unneeded or {}).items():
        given = data.get(part)
        if isinstance(given, dict):
            wanted = {key: value for key, value in given.items() if key not in keys or _is_set(value, environment)}
            data = {**data, part: wanted}
    resolved = _resolve(data, (), source, tree, environment)
    try:
        return form.model_validate(resolved)
    except ValidationError as error:
        # A misspelt key shows up twice, as one too many and one too few: the line that is there helps more.
        first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
        path = first.get("ctx", {}).get("path") or tuple(
            part for part in first["loc"] if not _is_tag(part, resolved, first["loc"])
        )
        key = ".".join(str(part) for part in path) or "(the file)"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        message, help_with_it = told(first, data, path)
        raise ConfigError(
            f"{source}, line {_line(tree, path)}: {key}: {message}{more}",
            hint=help_with_it or hint,
        ) from error


def schema() -> dict[str, Any]:
    """JSON Schema of the file."""
    return Config.model_json_schema()


def _unknown_name(path: tuple[str | int, ...], what: str, name: str, known: Iterable[str]) -> PydanticCustomError:
    """Pydantic gives errors of the whole model no place in the file, so they carry their own."""
    return PydanticCustomError(
        "unknown_name",
        "there is no {what} {name} under {what}s: (there: {known})",
        {"path": path, "what": what, "name": repr(name), "known": ", ".join(known)},
    )


def _resolve(
    value: Any, path: tuple[str | int, ...], source: str, tree: yaml.Node, environment: Mapping[str, str]
) -> Any:
    if isinstance(value, dict):
        return {key: _resolve(item, (*path, key), source, tree, environment) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolve(item, (*path, index), source, tree, environment) for index, item in enumerate(value)]
    if not isinstance(value, str):
        return value

    def lookup(match: re.Match[str]) -> str:
        default: str | None = match["default"]
        found = environment.get(match["name"], default)
        if found is None:
            key = ".".join(map(str, path))
            raise ConfigError(
                f"{source}, line {_line(tree, path)}: {key}: environment variable {match['name']} is not set",
                hint=f"export {match['name']}=…",
            )
        return found

    return REFERENCE.sub(lookup, value)


def _is_set(value: Any, environment: Mapping[str, str]) -> bool:
    """Whether every variable in it is set to something, or has a default."""
    if isinstance(value, dict):
        return all(_is_set(item, environment) for item in value.values())
    if isinstance(value, list):
        return all(_is_set(item, environment) for item in value)
    if not isinstance(value, str):
        return True
    return all(found["default"] is not None or environment.get(found["name"]) for found in REFERENCE.finditer(value))


def _is_tag(part: str | int, data: Any, location: tuple[str | int, ...]) -> bool:
    """Pydantic puts a union's tag into the location; it is no key of the file."""
    for step in location[: location.index(part)]:
        try:
            data = data[step]
        except (KeyError, IndexError, TypeError):
            continue  # another tag, or a key that is missing
    return isinstance(data, dict) and data.get("kind") == part and part not in data


def _line(tree: yaml.Node, path: tuple[str | int, ...]) -> int:
    """Line (from 1) of the deepest node on `path` that exists."""
    node = tree
    line = node.start_mark.line + 1
    for part in path:
        if isinstance(node, yaml.MappingNode):
            match = next(((key, value) for key, value in node.value if key.value == str(part)), None)
            if match is None:
                break
            line, node = match[0].start_mark.line + 1, match[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line
