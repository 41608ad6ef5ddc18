"""Prefect tasks: one change or one look each; retry, time-out, log. No decisions."""
