"""Three clouds on this machine, spoken to by the clouds' official SDKs.

Each vendor has a folder (`aws/`, `azure/`, `gcp/`) with one file per service. What they share is small:
`delays.py` (how long things take), `faults.py` (what goes wrong next), `calls.py` (what was asked), `web.py`
(HTTP serving with faults applied), `containers.py` (the processes that really serve), `control.py` (the address
through which a test or a person turns the knobs).

The sandbox imports nothing of the product, so that it cannot share the product's mistakes.
"""
