"""What is kept: versions (MLflow), their bytes (object stores), what was done (the ledger), outcomes."""
