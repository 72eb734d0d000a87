"""Run one command and print, as JSON, what its process cost: ``python -S launcher.py PROGRAM ARGUMENT...``.

A program of its own because Linux hands a parent's peak memory on to its children (the high-water mark survives exec):
started from a process that holds torch, every converter would seem to need as much as torch. This one holds 10 MB.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time

__all__: list[str] = []

_RSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024


def _usage(arguments: list[str]) -> dict[str, float | int]:
    """Exit code, CPU and wall seconds and peak memory of the command and of the children it waited for."""
    start = time.perf_counter()
    # Its stdout goes to our stderr: our own stdout holds one JSON object.
    pid = os.posix_spawn(arguments[0], arguments, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, 2, 1)])
    _, status, usage = os.wait4(pid, 0)
    return {
        "exit_code": os.waitstatus_to_exitcode(status),
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "wall_s": time.perf_counter() - start,
        "peak_rss_bytes": max(usage.ru_maxrss, _children_peak()) * _RSS_UNIT_BYTES,
    }


def _children_peak() -> int:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss


if __name__ == "__main__":
    print(json.dumps(_usage(sys.argv[1:])))
