"""Memory that a process keeps: a heap that has broken up does not stay large."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
from slidebatch.allocator import _resident_bytes, give_back_excess, keep_memory
keep_memory()
assert not give_back_excess("task")  # the first task sets the measure
blocks = [bytearray(1_000_000) for _ in range(200)]
del blocks[::2]  # the other half stays in between: nothing is free at the end of the heap
assert _resident_bytes() > 190_000_000
assert not give_back_excess("task of another kind")
grew = give_back_excess("task")
print(grew, _resident_bytes())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_a_process_that_outgrew_its_first_task_gives_back_what_lies_free() -> None:
    told = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True).stdout.split()
    assert told[0] == "True"
    assert int(told[1]) < 150_000_000
