"""Prefect flows: parameters, blocks, and one operation each, run with Prefect's runner."""
