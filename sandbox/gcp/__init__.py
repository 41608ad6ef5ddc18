"""Google Cloud: Vertex AI, Cloud Storage, Cloud Monitoring and the token endpoint; `servers.py` starts them."""
