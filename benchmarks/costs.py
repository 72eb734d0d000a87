"""What one conversion costs: CPU and wall seconds, whole process and without imports, and peak memory."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.worker import Job
from edgekit.errors import EngineError

__all__ = ["ROOT", "Cost", "Part", "median_cost", "run_worker"]

ROOT = Path(__file__).resolve().parent.parent
_LOG_TAIL_CHARS = 2000


class Part(msgspec.Struct, frozen=True):
    """Seconds of one part of a conversion."""

    cpu_s: float
    wall_s: float


class Cost(msgspec.Struct, frozen=True):
    """The whole process (interpreter start, imports, everything) and its parts: "imported", "converted", ...

    The part "prepared", in which a torch network is built and its weights are read, is not in ``cpu_s`` and ``wall_s``.
    """

    cpu_s: float
    wall_s: float
    peak_rss_bytes: int
    parts: dict[str, Part]


class _Usage(msgspec.Struct, frozen=True):
    exit_code: int
    cpu_s: float
    wall_s: float
    peak_rss_bytes: int


def run_worker(python: Path, converter: str, job: Job, limit_s: float = 3600) -> Cost:
    """Run ``benchmarks.worker`` with ``python``, the interpreter of the converter's environment.

    Raises EngineError where it fails, with the end of what the converter printed, or takes more than ``limit_s``.
    """
    report = Path(job["report"])
    report.parent.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    job_path = report.with_suffix(".job.json")
    job_path.write_text(json.dumps(job))
    command = [str(python), "-m", "benchmarks.worker", converter, str(job_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    launcher = [sys.executable, "-S", str(ROOT / "benchmarks" / "launcher.py")]
    with subprocess.Popen(launcher + command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True,
                          stderr=subprocess.PIPE, start_new_session=True) as process:
        try:
            printed, log = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise EngineError(f"{converter} was not done with {job['net']} within {limit_s:g} s.") from None
    if process.returncode != 0:
        raise EngineError(f"{python} cannot be started: {log.strip()[-_LOG_TAIL_CHARS:]}",
                          "Make the peers' environments with: python -m benchmarks.peers_setup")
    usage = msgspec.json.decode(printed, type=_Usage)
    if usage.exit_code != 0 or not report.exists():
        raise EngineError(f"{converter} failed on {job['net']} with exit code {usage.exit_code}:\n"
                          f"{log.strip()[-_LOG_TAIL_CHARS:]}")
    parts = msgspec.json.decode(report.read_bytes(), type=dict[str, Part])
    prepared = parts.get("prepared", Part(0.0, 0.0))
    return Cost(usage.cpu_s - prepared.cpu_s, usage.wall_s - prepared.wall_s, usage.peak_rss_bytes, parts)


def median_cost(costs: Sequence[Cost]) -> Cost:
    """The median of every figure over repeated runs of the same conversion."""
    return Cost(
        cpu_s=statistics.median(cost.cpu_s for cost in costs),
        wall_s=statistics.median(cost.wall_s for cost in costs),
        peak_rss_bytes=int(statistics.median(cost.peak_rss_bytes for cost in costs)),
        parts={
            name: Part(
                cpu_s=statistics.median(cost.parts[name].cpu_s for cost in costs),
                wall_s=statistics.median(cost.parts[name].wall_s for cost in costs),
            )
            for name in costs[0].parts
        },
    )
