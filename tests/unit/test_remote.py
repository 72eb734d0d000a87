"""Measuring on a board: over a real sshd on the loopback interface, and through an adb that works on this machine."""

from __future__ import annotations

import ast
import os
import sys
import threading
import time
import venv
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from edgekit.errors import BadModel, BadRecipe, EngineError, RemoteError, UnknownName
from edgekit.measure import BenchOptions
from edgekit.remote import supervise, timing
from edgekit.remote.adb import AdbTransport
from edgekit.remote.bench import RemoteOptions, bench_on
from edgekit.remote.ssh import SshTransport
from edgekit.remote.transport import LostConnection
from tests.boards import FakeAdb, Sshd, wait_for

QUICK = BenchOptions(runs=10, warmup=1, cold_starts=1)
LONGER = msgspec.structs.replace(QUICK, sustain_s=2.0)
HERE = RemoteOptions(python=sys.executable, attempts=6, pause_s=0.2)


def left(folder: Path) -> list[Path]:
    """What of ours is there; engines have temporary files of their own."""
    return list(folder.glob("edgekit-*"))


@pytest.fixture
def adb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeAdb:
    return FakeAdb(tmp_path / "adb", monkeypatch)


@pytest.fixture
def sshd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    server = Sshd(tmp_path / "sshd", monkeypatch)
    yield server
    server.stop()


@pytest.mark.parametrize("module", [supervise, timing])
def test_what_is_copied_needs_no_new_python_and_nothing_of_edgekit(module: object) -> None:
    text = Path(str(getattr(module, "__file__", ""))).read_text(encoding="utf-8")
    tree = ast.parse(text, feature_version=(3, 8))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= set(sys.stdlib_module_names)


def test_over_ssh_a_model_is_measured_and_nothing_is_left(sshd: Sshd, small_onnx: Path) -> None:
    (found,) = bench_on(SshTransport(sshd.url), [small_onnx], QUICK, HERE).results
    assert found.board is not None
    assert found.board.address == sshd.url
    assert found.board.machine == os.uname().machine
    assert found.board.cores == len(os.sched_getaffinity(0))
    assert found.engine_version.startswith("onnxruntime ")
    assert found.inputs[0].shape == (1, 3, 16, 16)
    assert found.runs == 10
    assert 0 < found.wall_ms.min <= found.wall_ms.median
    assert found.cold_start.total_ms == pytest.approx(
        found.cold_start.import_ms + found.cold_start.load_ms + found.cold_start.first_run_ms)
    assert not left(sshd.tmp)


def test_a_connection_that_breaks_in_the_middle_is_made_again(sshd: Sshd, small_onnx: Path) -> None:
    broken: list[int] = []
    same: list[bool] = []

    def break_it() -> None:
        measuring = wait_for("edgekit-*/pid", sshd.tmp)
        group = measuring.read_text()
        time.sleep(0.3)
        broken.append(sshd.hang_up())
        sshd.stop()
        time.sleep(0.7)  # longer than the first pause: the first attempts are refused
        same.append(measuring.read_text() == group)  # it goes on meanwhile, and is not begun anew
        os.killpg(int(group), 0)
        sshd.start()

    breaker = threading.Thread(target=break_it)
    breaker.start()
    (found,) = bench_on(SshTransport(sshd.url), [small_onnx], LONGER, HERE).results
    breaker.join()
    assert broken[0] >= 1
    assert found.sustained is not None
    assert same == [True]
    assert found.sustained.seconds >= 1.9
    assert not left(sshd.tmp)


def test_a_board_that_stays_away_is_given_up_and_cleans_up_itself(sshd: Sshd, small_onnx: Path) -> None:
    def leave() -> None:
        wait_for("edgekit-*/pid", sshd.tmp)
        sshd.stop()

    gone = threading.Thread(target=leave)
    gone.start()
    remote = RemoteOptions(python=sys.executable, attempts=3, pause_s=0.1, keep_s=1)
    with pytest.raises(RemoteError, match="cannot be reached") as caught:
        bench_on(SshTransport(sshd.url), [small_onnx], LONGER, remote)
    gone.join()
    assert any("goes by itself" in note for note in caught.value.__notes__)
    deadline = time.monotonic() + 60
    while left(sshd.tmp) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left(sshd.tmp)


def test_an_unknown_host_key_and_a_wrong_key_are_no_reason_to_try_again(sshd: Sshd, small_onnx: Path) -> None:
    known, config = sshd.folder / "known", sshd.folder / "ssh_config"
    right = known.read_text()
    known.write_text("")
    with pytest.raises(RemoteError, match="Host key verification failed") as caught:
        bench_on(SshTransport(sshd.url), [small_onnx], QUICK, HERE)
    assert f"ssh -p {sshd.port}" in caught.value.remedy
    known.write_text(right)
    config.write_text(config.read_text().replace("/user\n", "/stranger\n"))
    with pytest.raises(RemoteError, match="Permission denied") as caught:
        bench_on(SshTransport(sshd.url), [small_onnx], QUICK, HERE)
    assert "ssh-copy-id" in caught.value.remedy


@pytest.mark.parametrize("url", [
    "ssh://-oProxyCommand=x", "ssh://me@-oProxyCommand=x", "ssh://host/path", "http://host", "ssh://u:p@host",
    "ssh://host:port", "ssh://", "ssh://-u@host", "ssh://ho st",
])
def test_addresses_that_are_none_or_would_be_options_are_refused(url: str) -> None:
    with pytest.raises(BadRecipe, match=r"ssh://user@host:22"):
        SshTransport(url)


def test_through_adb_two_files_are_compared_and_nothing_is_left(adb: FakeAdb, small_onnx: Path) -> None:
    report = bench_on(AdbTransport("emulator-5554"), [small_onnx, small_onnx], QUICK, HERE)
    assert [each.board.address for each in report.results if each.board] == ["adb:emulator-5554"] * 2
    assert report.comparison is not None
    assert 0.2 < report.comparison.ratio < 5
    assert any(call.startswith("-s emulator-5554 push") for call in adb.calls)
    assert not left(adb.tmp)


def test_a_cable_that_is_pulled_in_the_middle_is_survived(adb: FakeAdb, small_onnx: Path) -> None:
    def pull() -> None:
        wait_for("edgekit-*/pid", adb.tmp)
        adb.unplug()
        time.sleep(0.5)
        adb.plug_in()

    puller = threading.Thread(target=pull)
    puller.start()
    (found,) = bench_on(AdbTransport(), [small_onnx], LONGER, HERE).results
    puller.join()
    assert found.sustained is not None
    assert not left(adb.tmp)


@pytest.mark.parametrize(("state", "remedy"), [
    ("unauthorized.", "allow debugging"), ("more than one device/emulator", "--adb SERIAL"),
])
def test_what_adb_refuses_is_said_at_once(adb: FakeAdb, small_onnx: Path, state: str, remedy: str) -> None:
    adb.say(state)
    with pytest.raises(RemoteError, match=state.split(".", maxsplit=1)[0]) as caught:
        bench_on(AdbTransport(), [small_onnx], QUICK, HERE)
    assert remedy in caught.value.remedy
    assert len(adb.calls) == 1


def test_a_device_that_is_not_there_is_tried_a_bounded_number_of_times(adb: FakeAdb, small_onnx: Path) -> None:
    with pytest.raises(RemoteError, match="'other' not found"):
        bench_on(AdbTransport("other"), [small_onnx], QUICK, HERE)
    assert len(adb.calls) == 2
    with pytest.raises(BadRecipe, match="serial"):
        AdbTransport("-e")


def test_a_board_without_python_or_engine_is_told_what_to_install(
    adb: FakeAdb, small_onnx: Path, tmp_path: Path
) -> None:
    with pytest.raises(RemoteError, match="There is no Python 'python9'") as caught:
        bench_on(AdbTransport(), [small_onnx], QUICK, RemoteOptions(python="python9"))
    assert "--remote-python" in caught.value.remedy
    venv.create(tmp_path / "bare", symlinks=True)  # without packages
    bare = tmp_path / "bare" / "bin" / "python"
    with pytest.raises(RemoteError, match="no numpy and no onnxruntime") as caught:
        bench_on(AdbTransport(), [small_onnx], QUICK, RemoteOptions(python=str(bare)))
    assert f"{bare} -m pip install numpy onnxruntime" in caught.value.remedy
    assert not left(adb.tmp)


def test_a_model_that_fails_there_is_an_error_and_leaves_nothing(adb: FakeAdb, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.onnx"
    wrong.write_bytes(b"no model")
    with pytest.raises(EngineError, match="adb:the only device failed"):
        bench_on(AdbTransport(), [wrong], QUICK, HERE)
    assert not left(adb.tmp)


def test_shapes_are_used_and_asked_for_there_too(adb: FakeAdb, small_onnx: Path) -> None:
    options = msgspec.structs.replace(QUICK, shapes={"image": (4, 3, 16, 16)})
    (found,) = bench_on(AdbTransport(), [small_onnx], options, HERE).results
    assert found.inputs[0].shape == (4, 3, 16, 16)
    with pytest.raises(EngineError, match="known: image"):
        bench_on(AdbTransport(), [small_onnx], msgspec.structs.replace(QUICK, shapes={"x": (1,)}), HERE)


def test_a_bundle_is_checked_here_and_its_model_runs_there(adb: FakeAdb, small_onnx: Path, tmp_path: Path) -> None:
    from edgekit.pipeline import build

    build(small_onnx, tmp_path / "m.edge")
    (found,) = bench_on(AdbTransport(), [tmp_path / "m.edge"], QUICK, HERE).results
    assert found.engine == "litert"
    (found,) = bench_on(
        AdbTransport(), [tmp_path / "m.edge"], msgspec.structs.replace(QUICK, engine="ort"), HERE).results
    assert found.engine == "ort"


def test_a_shell_that_greets_programs_does_no_harm(adb: FakeAdb, small_onnx: Path) -> None:
    (adb.folder / "greeting").write_text('{"state": "done"}\nWelcome!')
    (found,) = bench_on(AdbTransport(), [small_onnx], QUICK, HERE).results
    assert found.runs == 10
    assert not left(adb.tmp)


@pytest.mark.parametrize(("url", "address"), [
    ("ssh://MyBoard", "ssh://MyBoard"), ("pi@raspberrypi.local", "ssh://pi@raspberrypi.local"),
    ("ssh://me@[fe80::1%eth0]:2222", "ssh://me@fe80::1%eth0:2222"), ("ssh://host:22/", "ssh://host:22"),
])
def test_names_of_boards_are_kept_as_they_are(url: str, address: str) -> None:
    assert SshTransport(url).address == address


def test_mistakes_are_found_before_anything_is_sent(adb: FakeAdb, small_onnx: Path, tmp_path: Path) -> None:
    for paths, error in (([], BadRecipe), ([tmp_path / "m.pt"], UnknownName), ([tmp_path / "none.onnx"], BadModel)):
        with pytest.raises(error):
            bench_on(AdbTransport(), paths, QUICK, HERE)
    assert not (adb.folder / "calls").exists()
    with pytest.raises(BadRecipe, match="python -c 'x'"):
        RemoteOptions(python="python -c 'x'")


def test_an_answer_that_was_cut_off_counts_as_lost(adb: FakeAdb) -> None:
    transport = AdbTransport()
    assert transport.shell("echo a; exit 3", 20).code == 3
    with pytest.raises(LostConnection):
        transport.shell("echo half; kill -9 $$", 20)
