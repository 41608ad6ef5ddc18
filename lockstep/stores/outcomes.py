"""Outcomes: was a prediction right, in the user's own terms, counted per cloud and version.

They lie where the user keeps them: a CSV or Parquet path (or a folder or glob of them), an SQL query, or Prometheus
queries. Rows carry a request id (the latest row of a request counts, whatever is delivered twice), a time, the cloud,
the version (its label, its digest or its slot name) and a value; `good_from` says from which value on it is good. Where
outcomes know only the request id, `requests` names a second table that tells cloud and version by request id.
"""

from __future__ import annotations

import contextlib
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import requests
from pydantic import BaseModel, ConfigDict, Field

from lockstep.errors import ConfigError, UnreachableError
from lockstep.rules.state import Version

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class OutcomeCount:
    """Outcomes of one version on one cloud; `version` is what the source calls it (label, digest or slot)."""

    cloud: str
    version: str
    total: int
    bad: int

    def is_of(self, version: Version) -> bool:
        """Whether the source's name for the version means `version`."""
        return self.version in (version.label, version.digest, version.slot)


class OutcomeSource(BaseModel, ABC):
    """Where outcomes are read from."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @abstractmethod
    def counts(self, since: datetime, until: datetime) -> tuple[OutcomeCount, ...]:
        """Counts per cloud and version of the outcomes in [since, until), both aware times."""


class Columns(BaseModel):
    """How the table's columns are called."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    request_id: str = "request_id"
    time: str = "time"
    cloud: str = "cloud"
    version: str = "version"
    value: str = "value"


class _Table(OutcomeSource):
    columns: Columns = Columns()
    good_from: Annotated[float, Field(description="An outcome is good from this value on.")] = 0.5

    def count(self, frame: pd.DataFrame, since: datetime, until: datetime) -> tuple[OutcomeCount, ...]:
        import pandas as pd

        names = self.columns
        _check_columns(frame, names.model_dump().values())
        times, values = frame[names.time], frame[names.value]
        try:
            if not pd.api.types.is_datetime64_any_dtype(times):
                times = times.astype(str)  # parts of a folder may differ: a CSV has texts, a Parquet file times
            times, values = pd.to_datetime(times, utc=True, format="ISO8601"), values.astype(float)
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"outcomes need a time in ISO 8601 in {names.time!r} and a number in {names.value!r}: {error}",
                hint="correct the rows, or set `columns:` of the model's outcomes in lockstep.yaml",
            ) from error
        frame = frame.copy()
        frame[names.time], frame[names.value] = times, values
        frame = frame[(times >= since) & (times < until)]
        frame = frame.sort_values(names.time, kind="stable").drop_duplicates(names.request_id, keep="last")
        bad = frame[names.value] < self.good_from
        grouped = bad.groupby([frame[names.cloud], frame[names.version].astype(str)])
        return tuple(
            OutcomeCount(str(cloud), str(version), int(group.size), int(group.sum()))
            for (cloud, version), group in grouped
        )


class FileOutcomes(_Table):
    """A CSV or Parquet file, a folder of them, or a glob; read anew each time."""

    kind: Literal["file"] = "file"
    path: Annotated[str, Field(description="CSV or Parquet file, folder or glob.")]
    requests: Annotated[
        str | None, Field(description="CSV or Parquet that tells cloud and version by request id, if outcomes do not.")
    ] = None

    def counts(self, since: datetime, until: datetime) -> tuple[OutcomeCount, ...]:
        """See OutcomeSource; a file that does not exist yet means no outcomes yet."""
        frame = _read_frames(self.path)
        if frame is None:
            return ()
        if self.requests is not None:
            known = _read_frames(self.requests)
            if known is None:
                return ()
            key, told = self.columns.request_id, [self.columns.cloud, self.columns.version]
            for table, needed in ((frame, [key]), (known, [key, *told])):
                _check_columns(table, needed)
            known = known[[key, *told]].drop_duplicates(key, keep="last")
            frame = frame.drop(columns=told, errors="ignore").merge(known, on=key, how="inner")
        return self.count(frame, since, until)


class SqlOutcomes(_Table):
    """An SQL query over SQLAlchemy; it may use the parameters `:since` and `:until` (aware times)."""

    kind: Literal["sql"] = "sql"
    url: Annotated[str, Field(description="SQLAlchemy URL of the database.")]
    query: Annotated[str, Field(description="SELECT that yields the columns.")]
    timeout: Annotated[float, Field(gt=0, description="Seconds that connecting and the query may take.")] = 10.0

    def counts(self, since: datetime, until: datetime) -> tuple[OutcomeCount, ...]:
        """See OutcomeSource."""
        import pandas as pd
        import sqlalchemy

        try:
            frame = self._within_time({"since": since.isoformat(), "until": until.isoformat()})
        except ImportError as error:
            raise ConfigError(
                f"outcomes cannot be read: {error}", hint="install the database's driver beside Lockstep"
            ) from error
        except (sqlalchemy.exc.SQLAlchemyError, pd.errors.DatabaseError) as error:
            raise UnreachableError(
                f"outcomes cannot be read: {str(error).splitlines()[0]}",
                hint="check `url` and `query` of the model's outcomes in lockstep.yaml",
            ) from error
        return self.count(frame, since, until)

    def _within_time(self, values: Mapping[str, str]) -> pd.DataFrame:
        """What the query yields. Drivers differ in the time-outs that they know, so a thread of its own is waited for.

        A query that is given up is cancelled where its driver can do that; nobody waits for its end.
        """
        import pandas as pd
        import sqlalchemy

        found: list[pd.DataFrame] = []
        faults: list[Exception] = []
        opened: list[sqlalchemy.Connection] = []

        def read() -> None:
            try:
                engine = sqlalchemy.create_engine(self.url, poolclass=sqlalchemy.NullPool)  # nothing stays open
                with engine.connect() as connection:
                    opened.append(connection)
                    query = sqlalchemy.text(self.query)
                    used = {name: value for name, value in values.items() if name in query.compile().params}
                    found.append(pd.read_sql_query(query, connection, params=used))
            except Exception as fault:
                faults.append(fault)

        thread = threading.Thread(target=read, name="outcomes", daemon=True)
        thread.start()
        thread.join(self.timeout)
        if found:
            return found[0]
        if faults:
            raise faults[0]
        for connection in opened:
            with contextlib.suppress(Exception):  # it may have ended just now
                driver = connection.connection.driver_connection
                getattr(driver, "interrupt", getattr(driver, "cancel", str))()
        raise UnreachableError(
            f"outcomes cannot be read: the database gave no answer within {self.timeout:g} s",
            hint="check `url` and `query` of the model's outcomes in lockstep.yaml, or raise their `timeout`",
        )


class PrometheusOutcomes(OutcomeSource):
    """Two PromQL queries that give one sample per cloud and version: all outcomes, and the bad ones.

    `{seconds}` in a query stands for the length of the period, as in
    `sum by (cloud, version) (increase(outcomes_total[{seconds}s]))`.
    """

    kind: Literal["prometheus"] = "prometheus"
    url: Annotated[str, Field(description="Address of the Prometheus server.")]
    total: Annotated[str, Field(description="PromQL for the number of outcomes.")]
    bad: Annotated[str, Field(description="PromQL for the number of bad outcomes.")]
    timeout: Annotated[float, Field(gt=0, description="Seconds a query may take.")] = 10.0

    def counts(self, since: datetime, until: datetime) -> tuple[OutcomeCount, ...]:
        """See OutcomeSource."""
        seconds = max(1, round((until - since).total_seconds()))
        total, bad = (self._query(query.replace("{seconds}", str(seconds)), until) for query in (self.total, self.bad))
        return tuple(
            OutcomeCount(cloud, version, round(count), min(round(count), round(bad.get((cloud, version), 0.0))))
            for (cloud, version), count in sorted(total.items())
        )

    @property
    def _address(self) -> str:
        """The address without user and password, for errors."""
        scheme, mark, rest = self.url.partition("://")
        host, slash, path = rest.partition("/")
        return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"

    def _query(self, query: str, at: datetime) -> Mapping[tuple[str, str], float]:
        try:
            answer = requests.get(
                f"{self.url.rstrip('/')}/api/v1/query",
                params={"query": query, "time": str(at.timestamp())},
                timeout=self.timeout,
            )
            body = answer.json()
        except (requests.RequestException, ValueError) as error:
            raise UnreachableError(
                f"Prometheus at {self._address} gave no answer: {type(error).__name__}",
                hint="check `url` of the model's outcomes in lockstep.yaml",
            ) from error
        if body.get("status") != "success":
            raise ConfigError(f"Prometheus refused {query!r}: {body.get('error')}", hint="mend the query")
        return {
            (sample["metric"].get("cloud", ""), sample["metric"].get("version", "")): float(sample["value"][1])
            for sample in body["data"]["result"]
            if math.isfinite(float(sample["value"][1]))  # a rate of nothing is NaN
        }


AnyOutcomes = Annotated[FileOutcomes | SqlOutcomes | PrometheusOutcomes, Field(discriminator="kind")]


def _read_frames(pattern: str) -> pd.DataFrame | None:
    import pandas as pd

    path = Path(pattern)
    if path.is_dir():
        paths = sorted([*path.rglob("*.csv"), *path.rglob("*.parquet")])
    elif path.exists():
        paths = [path]
    else:
        paths = sorted(path.parent.glob(path.name))
    # Parts of a live folder may be empty for a moment, between being made and being written.
    frames = [frame for part in paths if (frame := _read_frame(part)) is not None]
    return pd.concat(frames, ignore_index=True) if frames else None


def _read_frame(path: Path) -> pd.DataFrame | None:
    import pandas as pd

    try:
        if not path.stat().st_size:
            return None
        return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (OSError, ValueError) as error:  # which a file that is being written gives as well: it may pass
        raise UnreachableError(
            f"outcomes cannot be read from {path}: {error}",
            hint="check the file; parts of a folder should be written under another name and renamed when whole",
        ) from error


def _check_columns(frame: pd.DataFrame, names: Iterable[str]) -> None:
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise ConfigError(
            f"outcomes have no column {missing[0]!r}; there are: {', '.join(map(str, frame.columns))}",
            hint="set `columns:` of the model's outcomes in lockstep.yaml",
        )
