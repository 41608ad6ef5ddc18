"""Google Vertex AI: `VertexSettings` describes one project and region, `Vertex` carries out the verbs there.

`cloud.py` holds the verbs, `rest.py` the calls and what their errors mean, `records.py` reads and writes Google's JSON
without any I/O, `metrics.py` does so for Cloud Monitoring.

All of it speaks the REST API v1 through google-auth's AuthorizedSession. The rich SDK, google-cloud-aiplatform, is left
out on purpose, also where versions are uploaded and deployed: it cannot join an operation that a killed process has
left running (`Endpoint.deploy` and `Model.upload` hand out no operation and list none), it keeps address, transport and
credentials in one place per process, so that two projects could not be used from two threads, and importing it takes
over ten seconds of processor time.
"""

from __future__ import annotations

from lockstep.clouds.vertex.cloud import Vertex, VertexSettings

__all__ = ["Vertex", "VertexSettings"]
