"""What a conversion's process is said to have cost: measured on processes whose cost is known."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import peers_setup, worker
from benchmarks.costs import ROOT, run_worker
from edgekit.errors import EngineError, UnknownName


def launch(code: str) -> dict[str, float]:
    command = [sys.executable, "-S", str(ROOT / "benchmarks" / "launcher.py"), sys.executable, "-S", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    usage: dict[str, float] = json.loads(done.stdout)
    return usage


def test_the_launcher_reports_memory_of_the_child_and_not_of_whoever_started_it() -> None:
    ballast = bytearray(400 << 20)
    ballast[::4096] = b"x" * len(ballast[::4096])
    assert launch("pass")["peak_rss_bytes"] < 60e6
    assert 200e6 < launch("b = bytearray(200 << 20); b[::4096] = b'x' * len(b[::4096])")["peak_rss_bytes"] < 300e6
    assert len(ballast) == 400 << 20


def test_the_launcher_counts_cpu_of_grandchildren_and_not_sleep() -> None:
    spin = "import time\nwhile time.process_time() < 0.3: pass"
    grandchild = f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {spin!r}])"
    assert 0.3 <= launch(grandchild)["cpu_s"] < 3
    idle = launch("import time; time.sleep(0.5)")
    assert idle["wall_s"] >= 0.5
    assert idle["cpu_s"] < 0.4


def test_the_launcher_keeps_its_stdout_to_itself_and_passes_the_exit_code_on() -> None:
    assert launch("print('noise'); raise SystemExit(3)")["exit_code"] == 3


def test_late_imports_count_as_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow_to_import.py").write_text("import time\ntime.sleep(0.3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("builtins.__import__", __import__)  # Marks replaces it: restore it after the test
    marks = worker.Marks()
    marks.mark("imported")
    time.sleep(0.1)
    import slow_to_import  # type: ignore[import-not-found]  # noqa: F401 - importing it is the point
    marks.mark("converted")
    parts = marks.parts()
    assert parts["imported"]["wall_s"] >= 0.3
    assert 0.1 <= parts["converted"]["wall_s"] < 0.3


def job(tmp_path: Path) -> worker.Job:
    return {"net": "mlp", "weights": "", "onnx": str(tmp_path / "absent.onnx"),
            "out": str(tmp_path / "out"), "report": str(tmp_path / "report.json")}


def test_a_failing_converter_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"(?s)edgekit failed on mlp with exit code 1.*absent\.onnx"):
        run_worker(Path(sys.executable), "edgekit", job(tmp_path))


def test_an_interpreter_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="cannot be started"):
        run_worker(tmp_path / "python", "edgekit", job(tmp_path))


def test_an_unknown_peer_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownName, match="Known: litert_torch, onnx2tf"):
        peers_setup.make("coremltools")


def test_a_missing_environment_is_named_with_the_command_that_makes_it(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_PEERS", str(tmp_path))
    with pytest.raises(EngineError, match=r"python -m benchmarks\.peers_setup onnx2tf"):
        peers_setup.peer_python("onnx2tf")


@pytest.mark.slow
def test_a_half_made_environment_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_PEERS", str(tmp_path))
    monkeypatch.setitem(peers_setup.PEERS, "onnx2tf", (("--no-index", "no-such-package-anywhere==1.0"),))
    with pytest.raises(EngineError, match="no-such-package-anywhere"):
        peers_setup.make("onnx2tf")
    assert not (tmp_path / "onnx2tf").exists()
