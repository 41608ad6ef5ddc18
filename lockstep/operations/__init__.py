"""What people ask for: plain functions, readable top to bottom, that run with or without Prefect."""
