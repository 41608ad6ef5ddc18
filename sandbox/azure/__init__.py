"""Azure: Blob Storage, Azure Machine Learning, Entra ID and Azure Monitor, one service per file."""
