"""Whatever is given to the command line: a clear line, an exit code that is not 0, and nothing half-written."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Cli


def refused(done: subprocess.CompletedProcess[str], code: int = 1) -> str:
    """The reason on stderr, after checking that the call failed as it must."""
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    reasons = [line for line in done.stderr.splitlines() if line.startswith("edgekit: error: ")]
    assert len(reasons) == 1, done.stderr
    assert "A bug of EdgeKit" not in reasons[0]
    return done.stderr


def flipped(data: bytes, seed: int = 0) -> bytes:
    """``data`` with one bit in every 64 bytes turned over."""
    random = np.random.default_rng(seed)
    damaged = bytearray(data)
    for start in range(0, len(damaged), 64):
        position = start + int(random.integers(min(64, len(damaged) - start)))
        damaged[position] ^= 1 << int(random.integers(8))
    return bytes(damaged)


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "8 bytes": lambda data: data[:8],
    "100 bytes": lambda data: data[:100],
    "truncated": lambda data: data[: len(data) * 2 // 3],
    "flipped": flipped,
    "not one": lambda _: b"this is no model " * 50,
}


@pytest.fixture(scope="module")
def files(edgekit_in: Cli, tmp_path_factory: pytest.TempPathFactory, small_onnx: Path) -> dict[str, bytes]:
    """A sound file of each kind, by suffix."""
    folder = tmp_path_factory.mktemp("sound")
    for arguments in (("convert", small_onnx, "--to", "litert", "-o", folder / "m.tflite"),
                      ("convert", small_onnx, "--to", "ort", "-o", folder / "m.ort"),
                      ("build", small_onnx, "-o", folder / "m.edge")):
        edgekit_in(folder, *arguments).check_returncode()
    sound = {suffix: (folder / f"m{suffix}").read_bytes() for suffix in (".tflite", ".ort", ".edge")}
    return {**sound, ".onnx": small_onnx.read_bytes()}


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("suffix", [".onnx", ".tflite", ".ort", ".edge"])
def test_inspect_of_a_broken_file_never_dies(
    cli: Cli, tmp_path: Path, files: dict[str, bytes], suffix: str, how: str
) -> None:
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(BROKEN[how](files[suffix]))
    done = cli("inspect", path)
    if how == "flipped" and done.returncode == 0:
        # Some damage can only be seen by running the model: then the file is described, and nothing crashed.
        assert suffix in (".onnx", ".tflite", ".ort")
        return
    assert str(path) in refused(done)


@pytest.mark.parametrize("how", BROKEN)
def test_convert_and_build_of_a_broken_model_write_nothing(
    cli: Cli, tmp_path: Path, files: dict[str, bytes], how: str
) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(BROKEN[how](files[".onnx"]))
    for arguments in (("convert", path, "--to", "litert", "-o", tmp_path / "x"), ("build", path, "-o", tmp_path / "x")):
        refused(cli(*arguments))
        assert [each.name for each in tmp_path.iterdir()] == ["broken.onnx"]


@pytest.mark.parametrize("suffix", [".tflite", ".ort", ".edge"])
def test_a_truncated_file_is_refused_by_every_verb_that_runs_it(
    cli: Cli, tmp_path: Path, files: dict[str, bytes], small_onnx: Path, suffix: str
) -> None:
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(BROKEN["truncated"](files[suffix]))
    refused(cli("bench", path, "--runs", 10))
    refused(cli("verify", path, "--against", small_onnx))
    if suffix == ".edge":
        np.save(tmp_path / "x.npy", np.zeros((1, 3, 16, 16), np.float32))
        refused(cli("run", path, tmp_path / "x.npy"))


@pytest.mark.parametrize("verb", ["convert", "build", "inspect", "verify", "run", "bench", "sign"])
@pytest.mark.parametrize("thing", ["missing", "folder"])
def test_a_missing_file_or_a_folder_is_refused(cli: Cli, tmp_path: Path, verb: str, thing: str) -> None:
    path = tmp_path / ("m.onnx" if verb in ("convert", "build") else "m.edge")
    if thing == "folder":
        path.mkdir()
    np.save(tmp_path / "x.npy", np.zeros(1, np.float32))
    assert cli("keygen", tmp_path / "k", tmp_path / "k.pub").returncode == 0
    more = {"convert": ("--to", "ort", "-o", tmp_path / "out"), "build": ("-o", tmp_path / "out"),
            "run": (tmp_path / "x.npy",), "sign": ("-o", tmp_path / "out", "--key", tmp_path / "k")}
    assert path.name in refused(cli(verb, path, *more.get(verb, ())))
    assert not (tmp_path / "out").exists()


def save_onnx(path: Path, ops: list[tuple[str, str]], opset: bool = True) -> None:
    """A chain of one-input ops (type, domain) over a vector of four floats."""
    from onnx import TensorProto, helper

    nodes = [helper.make_node(op, [f"t{n}"], [f"t{n + 1}"], f"node_{n}", domain=domain)
             for n, (op, domain) in enumerate(ops)]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("t0", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info(f"t{len(ops)}", TensorProto.FLOAT, [4])])
    domains = {"": 17, **{domain: 1 for _, domain in ops if domain}}
    opsets = [helper.make_opsetid(*each) for each in domains.items()]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    if not opset:
        del model.opset_import[:]
    path.write_bytes(model.SerializeToString())


def test_a_model_without_opset_import_is_refused(cli: Cli, tmp_path: Path) -> None:
    save_onnx(tmp_path / "m.onnx", [("Relu", "")], opset=False)
    assert "opset" in refused(cli("convert", "m.onnx", "--to", "litert", "-o", "x.tflite"))


def test_an_op_of_a_custom_domain_is_named(cli: Cli, tmp_path: Path) -> None:
    save_onnx(tmp_path / "m.onnx", [("Relu", ""), ("Frobnicate", "com.example")])
    for engine in ("litert", "ort"):
        reason = refused(cli("convert", "m.onnx", "--to", engine, "-o", "x"))
        assert "Frobnicate" in reason
        assert "node_1" in reason
    assert not (tmp_path / "x").exists()


def test_all_unsupported_ops_are_named_at_once(cli: Cli, tmp_path: Path) -> None:
    ops = ["First", "Second", "Third"]
    save_onnx(tmp_path / "m.onnx", [(op, "com.example") for op in ops])
    done = cli("convert", "m.onnx", "--to", "litert", "-o", "x.tflite", "--json")
    refused(done)
    error = json.loads(done.stdout)["error"]
    assert error["type"] == "UnsupportedOps"
    for number, op in enumerate(ops):
        assert op in error["message"]
        assert f"node_{number}" in error["message"]


@pytest.fixture
def bundle(tmp_path: Path, files: dict[str, bytes]) -> Path:
    path = tmp_path / "m.edge"
    path.write_bytes(files[".edge"])
    return path


@pytest.mark.parametrize(("array", "text"), [
    (np.zeros((1, 3, 15, 16), np.float32), "1, 3, 15, 16"),
    (np.zeros((3, 16, 16), np.float32), "3, 16, 16"),
    (np.zeros((1, 3, 16, 16), np.float64), "float64"),
    (np.full((1, 3, 16, 16), np.nan, np.float32), "NaN"),
], ids=["shape", "rank", "dtype", "nan"])
def test_an_input_that_does_not_fit_is_refused(
    cli: Cli, tmp_path: Path, bundle: Path, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]], text: str
) -> None:
    np.save(tmp_path / "x.npy", array)
    assert text in refused(cli("run", bundle, tmp_path / "x.npy"))


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"PK\x03\x04 no zip", b"no array at all"])
@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.png"])
def test_an_input_file_that_is_damaged_is_refused(
    cli: Cli, tmp_path: Path, bundle: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    assert name in refused(cli("run", bundle, tmp_path / name))


def test_a_pickle_in_an_array_file_is_not_opened(cli: Cli, tmp_path: Path, bundle: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert "x.npy" in refused(cli("run", bundle, tmp_path / "x.npy"))


def test_a_bundle_with_an_entry_that_the_manifest_does_not_name_is_refused(
    cli: Cli, tmp_path: Path, bundle: Path
) -> None:
    with zipfile.ZipFile(bundle, "a") as archive:
        archive.writestr("../outside.txt", b"x")
    for verb in ("inspect", "verify", "bench"):
        refused(cli(verb, bundle))
    assert not (tmp_path.parent / "outside.txt").exists()


def test_one_flipped_byte_in_a_weight_is_refused_before_an_engine_sees_it(
    cli: Cli, tmp_path: Path, bundle: Path
) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 3, 16, 16), np.float32))
    data = bytearray(bundle.read_bytes())
    with zipfile.ZipFile(bundle) as archive:
        info = next(each for each in archive.infolist() if each.filename.endswith(".tflite"))
    data[data.index(b"TFL3", info.header_offset) + 500] ^= 1
    bundle.write_bytes(data)
    for arguments in (("run", bundle, tmp_path / "x.npy", "--engine", "litert"), ("verify", bundle)):
        assert "hash" in refused(cli(*arguments))


@pytest.mark.parametrize("arguments", [
    (), ("--frobnicate",), ("frobnicate",), ("convert",), ("convert", "x.onnx", "--to", "tensorrt", "-o", "x"),
    ("convert", "x.onnx", "--to", "ort", "-o", "x", "--shape", "x"), ("bench", "--threads", "many", "x.edge"),
    ("run", "m.edge", "x.npy", "--resolution", "224"), ("sign", "m.edge", "-o", "x"),
])
def test_wrong_usage_is_exit_code_2(cli: Cli, arguments: tuple[str, ...]) -> None:
    assert "--help" in refused(cli(*arguments), code=2)
    with_json = cli(*arguments, "--json")
    assert json.loads(with_json.stdout)["error"]["exit_code"] == with_json.returncode == 2


def test_an_unknown_verb_lists_the_known_ones(cli: Cli) -> None:
    assert "Known: compress, export, convert, quantize, build" in refused(cli("frobnicate"), code=2)


@pytest.mark.parametrize("arguments", [
    ("bench", "m.edge", "--threads", "0"), ("bench", "m.edge", "--runs", "1"),
    ("bench", "m.edge", "m.edge", "m.edge"), ("inspect", "m.edge", "--require-signature"),
    ("run", "m.edge", "x.npy", "--top", "0"), ("verify", "m.edge", "--tolerance", "2"),
    ("inspect", "m.edge", "--public-key", "m.edge"), ("bench", "m.xyz"),
])
def test_an_option_that_makes_no_sense_is_refused(
    cli: Cli, tmp_path: Path, bundle: Path, arguments: tuple[str, ...]
) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 3, 16, 16), np.float32))
    done = cli(*arguments, "--json")
    refused(done)
    error = json.loads(done.stdout)["error"]
    assert error["exit_code"] == 1
    assert f"edgekit: error: {error['message']}" in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to_is_said_and_left_alone(
    cli: Cli, tmp_path: Path, small_onnx: Path
) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    refused(cli("convert", small_onnx, "--to", "ort", "-o", folder / "x.onnx"))
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_a_full_disk_behind_stdout_or_the_output_is_an_error(cli: Cli, tmp_path: Path, small_onnx: Path) -> None:
    refused(cli("convert", small_onnx, "--to", "ort", "-o", "/dev/full"))
    command = [sys.executable, "-m", "edgekit", "inspect", str(small_onnx), "--json"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert "standard output" in done.stderr


def test_a_reader_that_goes_away_is_no_error_message(small_onnx: Path) -> None:
    command = [sys.executable, "-m", "edgekit", "inspect", str(small_onnx)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.close()
    said = child.stderr.read()
    child.stderr.close()
    assert child.wait(60) != 0
    assert said == ""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="sees the process that measures in /proc")
def test_ctrl_c_ends_with_130_and_one_line(tmp_path: Path, bundle: Path) -> None:
    command = [sys.executable, "-m", "edgekit", "bench", str(bundle), "--runs", "100000000", "--max-seconds", "60"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    started = Path(f"/proc/{child.pid}/task/{child.pid}/children")
    deadline = time.monotonic() + 60
    while not started.read_text() and time.monotonic() < deadline:  # it measures in a process of its own
        time.sleep(0.05)
    time.sleep(0.5)  # and it has begun to wait for that
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=30)
    assert child.returncode == 130
    assert said.strip() == "edgekit: error: Interrupted."


def test_debug_shows_the_traceback_and_the_same_line(cli: Cli) -> None:
    plain, debug = cli("inspect", "none.onnx"), cli("inspect", "none.onnx", "--debug")
    assert "Traceback" in debug.stderr
    assert debug.stderr.endswith(plain.stderr)
    assert debug.returncode == plain.returncode == 1


def test_output_over_the_input_is_refused(cli: Cli, tmp_path: Path, small_onnx: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(small_onnx.read_bytes())
    refused(cli("convert", path, "--to", "ort", "-o", path))
    refused(cli("build", path, "-o", path))
    assert path.read_bytes() == small_onnx.read_bytes()


def test_a_failed_comparison_prints_its_figures_and_fails(cli: Cli, tmp_path: Path, small_onnx: Path) -> None:
    import onnx
    from onnx import numpy_helper

    proto = onnx.load(small_onnx)
    bias = next(each for each in proto.graph.initializer if each.name == "b1")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.5), "b1"))
    onnx.save(proto, tmp_path / "other.onnx")
    done = cli("verify", "other.onnx", "--against", small_onnx, "--json")
    assert re.search("differs by 0.5", refused(done))
    got = json.loads(done.stdout)
    assert got["passed"] is False
    assert got["error"]["type"] == "VerificationFailed"
    assert got["reports"][0]["outputs"][0]["max_abs_diff"] == pytest.approx(0.5, rel=1e-3)
