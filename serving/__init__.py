"""The one server that runs inside every cloud's container.

It finds the model as that cloud's container contract puts it there (`contract.py`, `fetch.py`), checks every byte
against the manifest before anything is loaded (`verify.py`), and serves MLflow's own scoring server with the version
and digest named in every answer (`app.py`). It needs MLflow, the model's requirements and, on Vertex AI,
google-cloud-storage; nothing of Lockstep itself, so that an image stays small.
"""
