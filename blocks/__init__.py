"""Prefect blocks: typed, secret settings with forms in the Prefect UI."""
