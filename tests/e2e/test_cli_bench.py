"""``edgekit bench`` for a long time and on a board, and ``edgekit inspect --placement``, from the outside."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from edgekit.pipeline import convert
from tests.boards import FakeAdb
from tests.conftest import Cli


def test_a_sustained_run_shows_its_course(cli: Cli, small_onnx: Path) -> None:
    done = cli("bench", small_onnx, "--sustain", "2", "--json")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["results"]
    assert 1.9 <= found["sustained"]["seconds"] < 6
    assert found["trusted"] == (found["refused"] == "")
    assert "last part over first" in cli("bench", small_onnx, "--sustain", "0.5").stdout


def test_strict_makes_an_unsteady_figure_an_error_and_prints_it_all_the_same(
    cli: Cli, small_onnx: Path, tmp_path: Path
) -> None:
    # An interpreter start-up hook that makes every third run slow: from the first to the last, so it is no drift.
    (tmp_path / "sitecustomize.py").write_text(
        "import itertools, time\nreal, calls = time.process_time, itertools.count()\n"
        "def slow():\n    time.sleep(0 if next(calls) % 3 else 0.004)\n    return real()\n"
        "time.process_time = slow\n")
    done = cli("bench", small_onnx, "--sustain", "1", "--strict", "--json", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    answer = json.loads(done.stdout)
    assert answer["error"]["type"] == "UnstableFigure"
    assert not answer["results"][0]["trusted"]
    assert "spread" in answer["results"][0]["refused"]
    assert "No figure can be given" in done.stderr


def test_a_device_is_measured_through_adb(
    cli: Cli, small_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adb = FakeAdb(tmp_path / "adb", monkeypatch)
    arguments = ("bench", small_onnx, "--runs", "10", "--remote-python", sys.executable)
    done = cli(*arguments, "--json", "--adb")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["results"]
    assert found["board"]["address"] == "adb:the only device"
    assert not list(adb.tmp.glob("edgekit-*"))
    assert "on adb:emulator-5554" in cli(*arguments, "--adb", "emulator-5554").stdout


@pytest.mark.parametrize(("arguments", "words"), [
    (("--remote", "ssh://board", "--adb"), "Leave one out"),
    (("--remote", "telnet://board"), "ssh://user@host:22"),
    (("--remote", "ssh://board", "--remote-python", "python3 -c 1"), "plain path"),
    (("--sustain", "-1"), "must be positive"),
])
def test_mistakes_are_named(cli: Cli, small_onnx: Path, arguments: tuple[str, ...], words: str) -> None:
    done = cli("bench", small_onnx, *arguments)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_inspect_tells_where_ops_run(cli: Cli, small_onnx: Path, tmp_path: Path) -> None:
    convert(small_onnx, "litert", tmp_path / "m.tflite")
    done = cli("inspect", "m.tflite", "--placement", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["placement"]
    assert found["xnnpack"]["taken"] >= 1
    assert [hint["accelerator"] for hint in found["hints"]] == ["gpu"]
    text = cli("inspect", small_onnx, "--placement").stdout
    assert "by rules" in text
    assert "a shape is dynamic" in text
    assert json.loads(cli("inspect", small_onnx, "--json").stdout)["placement"] is None


@pytest.mark.skipif(shutil.which("ssh") is None, reason="needs OpenSSH's client")
def test_a_board_that_is_not_there(cli: Cli, small_onnx: Path) -> None:
    done = cli("bench", small_onnx, "--remote", "ssh://nowhere.invalid", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["type"] == "RemoteError"
    assert "cannot be reached" in done.stderr
