"""Names that the parts of the demo share."""

from typing import Final

MODEL: Final = "tumour"
CLOUDS: Final = ("aws", "azure", "gcp")
REQUESTS_FILE: Final = "requests.csv"
OUTCOMES_FILE: Final = "outcomes.csv"
REQUEST_COLUMNS: Final = ("time", "request_id", "cloud", "slot", "version", "digest", "ok", "latency", "problem")
OUTCOME_COLUMNS: Final = ("time", "request_id", "cloud", "version", "value")
