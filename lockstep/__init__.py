"""Lockstep keeps one model version in step on every cloud, and takes all of them back at once."""
