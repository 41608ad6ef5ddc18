"""Google Vertex AI: `VertexSettings` describes one project and region, `Vertex` carries out the verbs there.

`adapter.py` holds the verbs, over `registry.py` (model versions), `slots.py` (deployments) and `endpoints.py`;
`rest.py` makes the calls and tells what their errors mean; `records.py` and `metrics.py` read and write Google's JSON
without any I/O.

All of it speaks the REST API v1 through google-auth's AuthorizedSession. The rich SDK, google-cloud-aiplatform, is left
out on purpose, also where versions are uploaded and deployed: it cannot join an operation that a killed process has
left running (`Endpoint.deploy` and `Model.upload` hand out no operation and list none), it keeps address, transport and
credentials in one place per process, so that two projects could not be used from two threads, and importing it takes
over ten seconds of processor time.
"""

from __future__ import annotations

from lockstep.clouds.vertex.adapter import Vertex
from lockstep.clouds.vertex.settings import VertexSettings

__all__ = ["Vertex", "VertexSettings"]
