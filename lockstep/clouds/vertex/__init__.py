"""Google Vertex AI: `VertexSettings` describes one project and region, `Vertex` carries out the verbs there.

`adapter.py` holds the verbs, over `registry.py` (model versions), `slots.py` (deployments) and `endpoints.py`;
`rest.py` and `sdk.py` make the calls, and `rest.py` tells what the errors of both mean; `records.py` and `metrics.py`
read and write Google's JSON without any I/O.

There are two ways to the service, both over REST and with the same credentials:

- What starts something long goes through the generated clients of google-cloud-aiplatform: UploadModel, CreateEndpoint
  and DeployModel, and the look at a version just uploaded. They are imported when the first of these calls is due,
  since that takes seconds of processor time and the memory of a small service.
- All else goes through google-auth's AuthorizedSession: checking, observing, moving and verifying traffic, measuring,
  invoking, removing a slot. A way back must not wait for an import. The waiting for long-running operations belongs
  here too: one loop follows those that were started here and those that a killed attempt left running, which only a
  listing shows, and it bears a look that fails in passing.

The package's other face, `aiplatform.Model.upload` and `Endpoint.deploy`, stays out on purpose: it hands out no
operation and lists none, so that nobody could join what a killed process has left running, and it keeps address,
transport and credentials in one place per process, so that two projects could not be used from two threads.
"""

from __future__ import annotations

from lockstep.clouds.vertex.adapter import Vertex
from lockstep.clouds.vertex.settings import VertexSettings

__all__ = ["Vertex", "VertexSettings"]
