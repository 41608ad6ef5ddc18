"""Threads that want obstore at the same time each get it whole, in a process that has not loaded it."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from lockstep.stores.artifacts import Replicas
from lockstep.stores.store_errors import translated

sys.setswitchinterval(1e-6)
ready = Barrier(8)

def begin(number):
    ready.wait()
    if number % 2:
        with translated("aws", "look"):
            return
    Replicas("aws", "memory:///", {}, {}, None)

with ThreadPoolExecutor(8) as pool:
    list(pool.map(begin, range(8)))
"""


def test_each_gets_it_whole() -> None:
    for _ in range(6):  # of which two or three would fail
        subprocess.run([sys.executable, "-c", CODE], timeout=120, check=True)
