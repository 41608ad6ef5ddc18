"""Decisions: pure functions over frozen values. No SDK, no network, no clock, no randomness."""
