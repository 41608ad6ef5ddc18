"""Adapters: one cloud each, behind the verbs of `base.Cloud`."""
