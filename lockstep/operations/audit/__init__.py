"""The audit report of a model: a page for people, the same as JSON, and everything to check both offline."""
