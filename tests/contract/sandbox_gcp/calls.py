"""What the tests of the Google Cloud sandbox ask for, and how it refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.contract.gcp_rest import RefusedError

SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]


def refusal(call: Callable[[], object]) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        call()
    return caught.value
