"""Memory that a process keeps: a heap that has broken up does not stay large."""

from __future__ import annotations

import os
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


THREADS = """
import ctypes, sys, threading
from slidebatch.allocator import one_heap
if sys.argv[1] == "one":
    assert one_heap()
gate = threading.Barrier(4)
def take():
    blocks = [bytearray(10_000) for _ in range(100)]
    gate.wait()  # all threads at once, or they take turns on one heap
threads = [threading.Thread(target=take) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc = ctypes.CDLL("libc.so.6")
libc.fdopen.restype = ctypes.c_void_p
out = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, out)
libc.fflush(out)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_threads_share_a_heap_where_it_is_asked_for() -> None:
    """Four threads that allocate at once use one heap, where they would use several."""
    command = [sys.executable, "-c", THREADS]
    bare = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    told = {
        how: subprocess.run([*command, how], env=bare, check=True, capture_output=True, text=True).stdout
        for how in ("one", "many")
    }
    assert told["one"].count("<heap nr") == 1
    assert told["many"].count("<heap nr") > 1
