"""What starts, watches and ends a measurement on a board. This file is copied there: it needs Python 3.8 alone.

``check ENGINE...`` tells what the board has; ``start FOLDER`` begins what FOLDER/request.json describes, in a
process that outlives the connection; ``wait FOLDER SECONDS`` tells how it stands; ``stop FOLDER`` ends it and removes
FOLDER. Each prints one JSON object. A folder that nobody comes back for is removed after a while.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["main"]

#: the modules of each engine, in the order in which the timing tries them
_MODULES = (("numpy", "numpy"), ("ort", "onnxruntime"), ("litert", "ai_edge_litert.interpreter"),
            ("litert", "tflite_runtime.interpreter"), ("litert", "tensorflow.lite.python.interpreter"))


def _board() -> dict[str, Any]:
    names = []
    for file in ("/proc/device-tree/model", "/proc/cpuinfo"):
        with contextlib.suppress(OSError):
            text = Path(file).read_text(errors="replace").strip("\0 \n")
            if file.endswith("cpuinfo"):
                lines = [line.partition(":")[2].strip() for line in text.splitlines()
                         if line.startswith(("model name", "Hardware", "Model"))]
                text = lines[0] if lines else ""
            names.append(text)
    governor = ""
    with contextlib.suppress(OSError):
        governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").read_text().strip()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0
    return {"name": next((name for name in names if name), ""), "machine": platform.machine(), "cores": usable,
            "system": f"{platform.system()} {platform.release()}", "python": platform.python_version(),
            "governor": governor}


def _check(engines: list[str]) -> dict[str, Any]:
    """Which of ``engines`` can be imported; each in its own process, since a wheel for another core dies of SIGILL."""
    found: dict[str, Any] = {"board": _board(), "engines": {}, "problems": {}}
    for engine, module in _MODULES:
        if engine in found["engines"] or engine not in ("numpy", *engines):
            continue
        code = f"import {module}; print(getattr(__import__('{module.partition('.')[0]}'), '__version__', 'unknown'))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True,
                              stdin=subprocess.DEVNULL, check=False)
        if done.returncode == 0:
            found["engines"][engine] = done.stdout.decode().split()[-1]
        elif b"ModuleNotFoundError" not in done.stderr:
            found["problems"][engine] = f"{_death(done.returncode)}: {_last(done.stderr)}"
    return found


def _death(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _last(text: bytes) -> str:
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1][:500] if lines else ""


def _start(folder: Path) -> dict[str, Any]:
    """Leave a supervisor behind that has nothing to do with the connection; a second call finds the first one's."""
    try:
        lock = os.open(str(folder / "started"), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        return {"state": "running"}
    os.close(lock)
    if os.fork() == 0:
        try:
            os.setsid()
            if os.fork() == 0:
                _supervise(folder)
        finally:
            os._exit(0)
    return {"state": "running"}


def _supervise(folder: Path) -> None:
    request = json.loads((folder / "request.json").read_text())
    with open(os.devnull, "r+b") as nothing, (folder / "log").open("wb") as log:  # noqa: PTH123 - a device, not a path
        for number, file in ((0, nothing), (1, log), (2, log)):
            os.dup2(file.fileno(), number)
    _write(folder / "pid", str(os.getpgid(0)))
    command = [sys.executable, str(folder / "timing.py"), "measure", str(folder)]
    try:
        code = subprocess.run(command, timeout=request["limit_s"], check=False).returncode
        problem = _death(code)
    except subprocess.TimeoutExpired:
        problem = f"it took more than {request['limit_s']:.0f} s"
    if not (folder / "result.json").exists():
        _write(folder / "result.json", json.dumps({"error": f"{problem}: {_last((folder / 'log').read_bytes())}"}))
    begin = time.monotonic()
    while folder.exists() and time.monotonic() - begin < request["keep_s"]:
        time.sleep(1)
    shutil.rmtree(str(folder), ignore_errors=True)  # nobody came back


def _write(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    part.replace(path)


def _wait(folder: Path, seconds: float) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while not (folder / "result.json").exists():
        if not (folder / "started").exists():
            return {"state": "absent"}
        group = _group(folder)
        if group and not _alive(group):
            time.sleep(0.2)  # it may have written its result just now
            return {"state": "done" if (folder / "result.json").exists() else "dead"}
        if time.monotonic() >= deadline:
            return {"state": "running"}
        time.sleep(0.25)
    return {"state": "done"}


def _group(folder: Path) -> int:
    try:
        return int((folder / "pid").read_text())
    except (OSError, ValueError):
        return 0


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _stop(folder: Path) -> dict[str, Any]:
    group = _group(folder)
    if group > 1:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it has ended
            os.killpg(group, signal.SIGKILL)
    shutil.rmtree(str(folder), ignore_errors=True)
    return {"state": "removed" if not folder.exists() else "left"}


def main(arguments: list[str]) -> int:
    """Do what ``arguments`` say; the exit code."""
    verb = arguments[0]
    folder = Path(arguments[1]) if len(arguments) > 1 else Path()
    answers: dict[str, Callable[[], object]] = {
        "check": lambda: _check(arguments[1:]), "start": lambda: _start(folder), "stop": lambda: _stop(folder),
        "wait": lambda: _wait(folder, float(arguments[2])),
    }
    sys.stdout.write(json.dumps(answers[verb]()) + "\n")
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
