"""The control address: JSON over HTTP, to look at the sandbox and to make things go wrong.

| request                       | body                                             | does                             |
|-------------------------------|--------------------------------------------------|----------------------------------|
| `GET  /settings`              |                                                  | the settings that were printed   |
| `GET  /faults`                |                                                  | the faults on the board          |
| `POST /faults`                | `{cloud, kind, operation?, count?, seconds?, …}` | add one; answers `{"number": N}` |
| `DELETE /faults[/N]`          |                                                  | clear one or all                 |
| `GET  /delays`, `PUT /delays` | `{"aws.endpoint.weights": 15}`                   | see or change delays (seconds)   |
| `GET  /permissions`           |                                                  | what callers are denied          |
| `PUT  /permissions`           | `{cloud, denied}`                                | deny these, and no others        |
| `GET  /calls?cloud=&since=`   |                                                  | what the clouds were asked       |
| `POST /corrupt`               | `{cloud, key, offset?}`                          | flip one byte of a stored object |
| `POST /evict`                 | `{cloud, endpoint, slot}`                        | take a slot's machine away       |

`kind`, `operation`, `count` and the rest are described in `sandbox/faults.py`, permissions in `sandbox/permissions.py`.
A request that cannot have the effect that it asks for (a cloud that does not run, an operation or permission that no
cloud has, an unknown field) is answered with 400.
"""

from __future__ import annotations

import difflib
import json
import threading
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields
from fnmatch import fnmatchcase
from typing import Any

from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule
from werkzeug.wrappers import Request, Response

from sandbox.faults import Fault
from sandbox.web import WebServer
from sandbox.world import CloudServers, World

ROUTES = Map(
    [
        Rule("/settings", endpoint="settings", methods=["GET"]),
        Rule("/faults", endpoint="faults", methods=["GET", "POST", "DELETE"]),
        Rule("/faults/<int:number>", endpoint="fault", methods=["DELETE"]),
        Rule("/delays", endpoint="delays", methods=["GET", "PUT"]),
        Rule("/permissions", endpoint="permissions", methods=["GET", "PUT"]),
        Rule("/calls", endpoint="calls", methods=["GET"]),
        Rule("/corrupt", endpoint="corrupt", methods=["POST"]),
        Rule("/evict", endpoint="evict", methods=["POST"]),
    ]
)
FAULT_FIELDS = {field.name for field in fields(Fault)}


class Control:
    """Serves the control address until `stop()`."""

    def __init__(self, world: World, clouds: Mapping[str, CloudServers]) -> None:
        self._world = world
        self._clouds = clouds
        self._published: dict[str, object] = {}
        self._lock = threading.Lock()
        self._server = WebServer(Request.application(self._respond), threads=6)

    @property
    def url(self) -> str:
        """The control address."""
        return self._server.url

    def publish(self, settings: dict[str, object]) -> None:
        """What `GET /settings` answers from now on."""
        self._published = settings

    def stop(self) -> None:
        """Close the address."""
        self._server.stop()

    def _respond(self, request: Request) -> Response:
        try:
            endpoint, arguments = ROUTES.bind_to_environ(request.environ).match()
            answer = getattr(self, f"_{endpoint}")(request, **arguments)
        except HTTPException as error:
            return _json({"error": error.description}, error.code or 500)
        except (ValueError, TypeError) as error:
            return _json({"error": str(error)}, 400)
        except KeyError as error:
            return _json({"error": f"not found: {error.args[0]}"}, 404)
        return _json(answer)

    def _settings(self, request: Request) -> object:
        return self._published

    def _faults(self, request: Request) -> object:
        if request.method == "GET":
            return self._world.faults.table()
        if request.method == "DELETE":
            self._world.faults.clear()
            return {}
        fault = Fault(**_fields(request, ("cloud", "kind"), FAULT_FIELDS - {"cloud", "kind"}))
        cloud = self._cloud(fault.cloud)
        known = cloud.operations()
        if not any(fnmatchcase(name, fault.operation) for name in known):
            near = ", ".join(difflib.get_close_matches(fault.operation, sorted(known), 3, 0.5))
            meant = f"; did you mean {near}?" if near else ""
            raise ValueError(f"{fault.cloud} has no operation {fault.operation!r}{meant}")
        if fault.kind == "stale":
            cloud.freeze()
        return {"number": self._world.faults.add(fault)}

    def _fault(self, request: Request, number: int) -> object:
        self._world.faults.clear(number)
        return {}

    def _delays(self, request: Request) -> object:
        if request.method == "PUT":
            changes = _document(request)
            for name, seconds in changes.items():
                if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
                    raise ValueError(f"{name}: a delay is a number of seconds >= 0, not {seconds!r}")  # noqa: TRY004 - as the other 400s
            self._world.delays.change(changes)
        return self._world.delays.table()

    def _permissions(self, request: Request) -> object:
        if request.method == "PUT":
            body = _fields(request, ("cloud", "denied"), frozenset())
            cloud, denied = self._cloud(body["cloud"]), body["denied"]
            if not isinstance(denied, list) or not all(isinstance(name, str) for name in denied):
                raise ValueError(f"denied is a list of permissions, not {denied!r}")
            known = {name.lower(): name for name in cloud.permissions()}
            for pattern in denied:
                if not any(fnmatchcase(name, pattern.lower()) for name in known):
                    near = difflib.get_close_matches(pattern.lower(), sorted(known), 3, 0.5)
                    meant = f"; did you mean {', '.join(known[name] for name in near)}?" if near else ""
                    raise ValueError(f"{body['cloud']} has no permission {pattern!r}{meant}")
            self._world.permissions.deny(body["cloud"], denied)
        return self._world.permissions.table()

    def _calls(self, request: Request) -> object:
        cloud = request.args.get("cloud")
        if cloud is not None:
            self._cloud(cloud)
        return self._world.calls.table(cloud, float(request.args.get("since", 0)))

    def _corrupt(self, request: Request) -> object:
        body = _fields(request, ("cloud", "key"), {"offset"})
        offset = body.get("offset", 0)
        if isinstance(offset, bool) or not isinstance(offset, int):
            raise ValueError(f"offset is a whole number of bytes, not {offset!r}")  # noqa: TRY004 - as the other 400s
        return {"corrupted": self._cloud(body["cloud"]).corrupt(str(body["key"]), offset)}

    def _evict(self, request: Request) -> object:
        body = _fields(request, ("cloud", "endpoint", "slot"), frozenset())
        return {"evicted": self._cloud(body["cloud"]).evict(str(body["endpoint"]), str(body["slot"]))}

    def _cloud(self, name: str) -> CloudServers:
        if name not in self._clouds:
            raise ValueError(f"cloud {name!r} does not run here (running: {', '.join(sorted(self._clouds))})")
        return self._clouds[name]


def _document(request: Request) -> dict[str, Any]:
    body = request.get_json(force=True)
    if not isinstance(body, dict):
        raise ValueError(f"{request.method} {request.path} takes a JSON object")  # noqa: TRY004 - as the other 400s
    return body


def _fields(request: Request, needed: tuple[str, ...], optional: AbstractSet[str]) -> dict[str, Any]:
    body = _document(request)
    missing = [name for name in needed if name not in body]
    if missing:
        raise ValueError(f"{request.path} needs {missing[0]!r}")
    unknown = sorted(set(body) - {*needed, *optional})
    if unknown:
        allowed = ", ".join(sorted({*needed, *optional}))
        raise ValueError(f"{request.path} has no field {unknown[0]!r}; fields: {allowed}")
    return body


def _json(answer: Any, status: int = 200) -> Response:
    return Response(json.dumps(answer), status, content_type="application/json")
