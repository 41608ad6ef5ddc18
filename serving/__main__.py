"""`python -m serving`: the container's entry point."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Final

from serving.contract import Contract, ContractError, read_contract
from serving.fetch import fetch_prefix
from serving.verify import DigestMismatchError, VerifiedModel, verify_folder

GRACE: Final = 20  # seconds for answers that are under way when it is ended; clouds kill it after 30


def locate(contract: Contract) -> VerifiedModel:
    """Bring the model's files here if that is our task, and check them."""
    folder = contract.folder
    if folder is None:
        folder = Path(tempfile.mkdtemp(prefix="model-"))
        fetch_prefix(contract.storage_uri or "", folder)
    return verify_folder(folder, contract.digest)


def main() -> int:
    """Check, load, serve. Exit status 1 with one line on standard error when the model must not be served."""
    try:
        contract = read_contract(os.environ)
        verified = locate(contract)
    except (ContractError, DigestMismatchError, OSError, ValueError) as error:
        print(f"serving: refused: {error}", file=sys.stderr)
        return 1
    print(
        f"serving: {verified.model} {contract.version} {contract.digest}: {verified.count} files verified", flush=True
    )
    # Imported after the check: a refusal is quick, and nothing of the model has been touched before it.
    import mlflow.pyfunc
    import uvicorn
    from mlflow.pyfunc import scoring_server

    from serving.app import VersionedApp
    from serving.server import Server

    scoring = scoring_server.init(mlflow.pyfunc.load_model(str(verified.files)))
    app = VersionedApp(scoring, contract, verified.model)
    config = uvicorn.Config(
        app,
        host=contract.host,
        port=contract.port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=GRACE,
    )
    Server(config).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
