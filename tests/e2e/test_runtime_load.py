"""Opening bundles: what is checked, chosen and hashed before an engine runs."""

from __future__ import annotations

import hashlib
import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgekit.artifacts import TensorSpec
from edgekit.bundle import Bundle, Variant, generate_key_pair, load_private_key, sign_bundle
from edgekit.errors import BadBundle, BadKey, EngineError, MissingExtra, SignatureMismatch, UnknownName
from edgekit.recipe import Preprocess
from edgekit.runtime import RuntimeOptions, load
from edgekit.runtime import loading as loading_module
from edgekit.runtime.engines import open_session
from edgekit.runtime.engines.litert import LiteRTSession
from tests.runtime_models import (
    COLOURS,
    colour_onnx,
    colour_tflite,
    conv_tflite,
    litert_variant,
    ort_variant,
    rnn_tflite,
    write_arrays,
    write_colours,
)

MODELS = {"models/a.tflite": colour_tflite(), "models/a.onnx": colour_onnx(),
          "models/b.tflite": colour_tflite(8, 8, 1)}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_colours(tmp_path / "colours.edge")


@pytest.mark.parametrize(("engine", "used"), [("auto", "litert"), ("litert", "litert"), ("ort", "ort")])
def test_the_engine_is_the_one_asked_for(bundle: Path, engine: str, used: str) -> None:
    with load(bundle, engine) as runtime:  # type: ignore[arg-type]
        assert runtime.engine == used
        assert runtime.variant.engine == used
        assert runtime.labels == COLOURS
        assert (runtime.signed, runtime.signature_checked) == (False, False)
        assert runtime.engine_version in repr(runtime)


def test_the_resolution_asked_for_picks_the_variant(tmp_path: Path) -> None:
    variants = (litert_variant(), litert_variant((8, 8), "models/b.tflite", batch=1))
    path = write_colours(tmp_path / "a.edge", variants, MODELS)
    for resolution, variant, size in ((None, "litert--1", (4, 6)), ((8, 8), "litert-8", (8, 8)),
                                      ((5, 9), "litert--1", (5, 9))):
        with load(path, options=RuntimeOptions(resolution=resolution)) as runtime:
            assert (runtime.variant.id, runtime.resolution) == (variant, size)
            assert runtime.run(np.zeros((30, 40, 3), np.uint8)).resolution == size


def test_the_first_image_finds_the_engine_ready(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with load(bundle, "litert", RuntimeOptions(resolution=(7, 9))) as runtime:
        monkeypatch.setattr(LiteRTSession, "_prepare", lambda *_: pytest.fail("resized a second time"))
        assert runtime.run(np.zeros((30, 40, 3), np.uint8)).resolution == (7, 9)


def test_only_the_entries_that_are_used_are_hashed_and_once(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    true_check = Bundle._check_hash

    def check(self: Bundle, entry: object, data: bytes) -> None:
        hashed.append(entry.name)  # type: ignore[attr-defined]
        true_check(self, entry, data)  # type: ignore[arg-type]

    monkeypatch.setattr(Bundle, "_check_hash", check)
    load(bundle, "litert").close()
    assert sorted(hashed) == ["labels.txt", "models/a.tflite"]


def test_the_engine_gets_the_bytes_that_were_hashed(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bytes, int]] = []

    def spy(engine: str, data: bytes, threads: int) -> object:
        seen.append((data, threads))
        return open_session(engine, data, threads)  # type: ignore[arg-type]

    monkeypatch.setattr(loading_module, "open_session", spy)
    load(bundle, "ort", RuntimeOptions(threads=2)).close()
    with Bundle.open(bundle) as opened:
        wanted = {entry.name: entry.sha256 for entry in opened.manifest.entries}["models/a.onnx"]
    assert [(hashlib.sha256(data).hexdigest(), threads) for data, threads in seen] == [(wanted, 2)]


@pytest.mark.parametrize("engine", ["litert", "ort"])
def test_a_flipped_bit_in_a_model_is_refused_before_the_engine_sees_it(bundle: Path, engine: str,
                                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    with Bundle.open(bundle) as opened:
        offset, size = opened.span("models/a.tflite" if engine == "litert" else "models/a.onnx")
    data = bytearray(bundle.read_bytes())
    data[offset + size // 2] ^= 1
    bundle.write_bytes(data)
    monkeypatch.setattr(loading_module, "open_session", lambda *_: pytest.fail("the engine was called"))
    with pytest.raises(BadBundle, match="hash"):
        load(bundle, engine)  # type: ignore[arg-type]


def test_a_flipped_bit_in_another_engines_model_does_not_matter(bundle: Path) -> None:
    with Bundle.open(bundle) as opened:
        offset, _ = opened.span("models/a.onnx")
    data = bytearray(bundle.read_bytes())
    data[offset] ^= 1
    bundle.write_bytes(data)
    load(bundle, "litert").close()


def test_signatures_are_checked_with_the_key_as_file_or_bytes(bundle: Path, tmp_path: Path) -> None:
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    generate_key_pair(private, public)
    signed = tmp_path / "signed.edge"
    sign_bundle(bundle, signed, load_private_key(private))
    for key in (public, str(public), public.read_bytes()):
        with load(signed, options=RuntimeOptions(public_key=key, require_signature=True)) as runtime:
            assert (runtime.signed, runtime.signature_checked) == (True, True)
    with load(signed) as runtime:
        assert (runtime.signed, runtime.signature_checked) == (True, False)
    other_private, other = tmp_path / "other.pem", tmp_path / "other.pub"
    generate_key_pair(other_private, other)
    with pytest.raises(SignatureMismatch):
        load(signed, options=RuntimeOptions(public_key=other))
    with pytest.raises(SignatureMismatch, match="not signed"):
        load(bundle, options=RuntimeOptions(public_key=public))
    with pytest.raises(BadKey):
        load(signed, options=RuntimeOptions(require_signature=True))


def test_unknown_engines_and_variants_list_the_known_ones(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match=r"'tvm'.*Known: auto, litert, ort"):
        load(bundle, "tvm")  # type: ignore[arg-type]
    with pytest.raises(UnknownName, match=r"'nope'.*Known: litert--1, ort-any"):
        load(bundle, options=RuntimeOptions(variant="nope"))
    with load(bundle, options=RuntimeOptions(variant="ort-any")) as runtime:
        assert runtime.engine == "ort"
    only_ort = write_colours(tmp_path / "ort.edge", (ort_variant(),))
    with pytest.raises(UnknownName, match=r"'litert'.*Known: ort"):
        load(only_ort, "litert")
    load(only_ort).close()


def test_auto_takes_what_is_installed_and_else_says_what_would_do(bundle: Path, tmp_path: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading_module, "is_available", lambda engine: engine == "ort")
    with load(bundle) as runtime:
        assert runtime.engine == "ort"
    monkeypatch.setattr(loading_module, "is_available", lambda _: False)
    with pytest.raises(MissingExtra, match=r"litert and ort.*edgekit-sdk\[litert\]' or pip .*edgekit-sdk\[ort\]'"):
        load(bundle)
    with pytest.raises(MissingExtra, match=r"for ort, and no package for it.*edgekit-sdk\[ort\]"):
        load(write_colours(tmp_path / "ort.edge", (ort_variant(),)))


@pytest.mark.parametrize("change", [
    {"inputs": (TensorSpec("image", "float32", (-1, 3, -1, -1)), TensorSpec("more", "float32", (1,)))},
    {"inputs": (TensorSpec("picture", "float32", (-1, 3, -1, -1)),)},
    {"inputs": (TensorSpec("image", "float64", (-1, 3, -1, -1)),)},
    {"inputs": (TensorSpec("image", "float32", (-1, -1, -1, -1)),)},
    {"inputs": (TensorSpec("image", "float32", (-1, 3, -1)),)},
    {"outputs": (TensorSpec("scores", "float32", (-1, 4)),)},
    {"outputs": (TensorSpec("scores", "float32", (3,)),)},
    {"outputs": (TensorSpec("score", "float32", (-1, 3)),)},
])
def test_a_manifest_that_promises_what_the_model_lacks_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    known = ort_variant()
    fields = {"inputs": known.inputs, "outputs": known.outputs, **change}
    path = write_arrays(tmp_path / "a.edge", colour_onnx(), engine="ort", **fields)  # type: ignore[arg-type]
    with pytest.raises(BadBundle, match="variant 'v'"):
        load(path)


def test_a_manifest_may_promise_less_than_the_model_takes(tmp_path: Path) -> None:
    variant = Variant("ort", "ort", "onnx", "fp32", "models/a.onnx", (TensorSpec("image", "float32", (1, 3, 4, -1)),),
                      (TensorSpec("scores", "float32", (1, 3)),))
    with load(write_colours(tmp_path / "a.edge", (variant,))) as runtime:
        assert runtime.resolution == (4, 6)
        assert runtime.run(np.zeros((9, 9, 3), np.uint8)).resolution == (4, 6)


@pytest.mark.parametrize("changes", [
    {"labels_entry": None},
    {"preprocess": Preprocess(colour="gray", mean=(0.0,), std=(1.0,))},
])
def test_a_manifest_at_odds_with_itself_is_refused_before_the_engine_starts(
        tmp_path: Path, changes: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_colours(tmp_path / "a.edge", **changes)  # type: ignore[arg-type]
    monkeypatch.setattr(loading_module, "open_session", lambda *_: pytest.fail("the engine was called"))
    with pytest.raises(BadBundle):
        load(path)


def test_labels_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = write_colours(tmp_path / "a.edge", task="classification", labels_entry="models/a.tflite")
    with pytest.raises(BadBundle, match=r"models/a\.tflite"):
        load(path)


def test_a_model_that_the_engine_refuses_is_an_engine_error(tmp_path: Path) -> None:
    path = write_colours(tmp_path / "a.edge", (litert_variant(),), {"models/a.tflite": b"not a model " * 50})
    with pytest.raises(EngineError, match="ai-edge-litert"):
        load(path)


def test_a_missing_bundle_and_a_folder_are_bad_bundles(tmp_path: Path) -> None:
    for path in (tmp_path / "none.edge", tmp_path):
        with pytest.raises(BadBundle):
            load(path)


@pytest.fixture
def convolution(tmp_path: Path) -> Path:
    return write_arrays(tmp_path / "conv.edge", conv_tflite(), [TensorSpec("image", "float32", (1, 8, 8, 3), "nhwc")],
                        [TensorSpec("features", "float32", (1, 8, 8, 16), "nhwc")])


def test_a_cache_folder_gives_the_same_answers_and_is_used_again(convolution: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)
    with load(convolution) as runtime:
        wanted = runtime.run(x).outputs["features"]
    options = RuntimeOptions(cache_dir=tmp_path / "cache")
    made = []
    for _ in range(2):
        with load(convolution, options=options) as runtime:
            assert "CompiledModel" in runtime.engine_version
            got = runtime.run(x).outputs["features"]
        np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-6)
        made.append({file.name: file.stat().st_mtime_ns for file in (tmp_path / "cache").iterdir()})
    assert made[0] == made[1]
    assert len(made[0]) == 2


def test_models_that_the_cache_does_not_suit_run_without_it(tmp_path: Path, bundle: Path,
                                                           caplog: pytest.LogCaptureFixture) -> None:
    options = RuntimeOptions(cache_dir=tmp_path / "cache")
    for engine in ("litert", "ort"):  # dynamic shapes; another engine
        with load(bundle, engine, options) as runtime:
            assert "CompiledModel" not in runtime.engine_version
            assert runtime.run(np.zeros((9, 9, 3), np.uint8)).label
    recurrent = write_arrays(tmp_path / "r.edge", rnn_tflite(), [TensorSpec("x", "float32", (1, 1, 2))],
                             [TensorSpec("y", "float32", (1, 1, 2))])
    x = np.full((1, 1, 2), 0.5, np.float32)
    with caplog.at_level(logging.INFO, logger="edgekit.runtime"), load(recurrent, options=options) as runtime:
        np.testing.assert_allclose(runtime.run(x).outputs["y"], np.tanh(x), rtol=1e-5)
    assert "runs without a weight cache" in caplog.text


_START = """
import sys
from edgekit.runtime import RuntimeOptions, load
import numpy as np
with load(sys.argv[1], options=RuntimeOptions(cache_dir=sys.argv[2])) as runtime:
    x = np.linspace(-1, 1, 192, dtype=np.float32).reshape(1, 3, 8, 8)
    print(repr(float(np.abs(runtime.run(x).outputs["features"]).sum())))
"""


def test_processes_that_start_together_share_one_cache(convolution: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _START, str(convolution), str(tmp_path / "cache")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                 for _ in range(4)]
    answers = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, answers
    assert len({answer for answer, _ in answers}) == 1
    names = sorted(file.suffix for file in (tmp_path / "cache").iterdir())
    assert names == [".json", ".xnnpack"]
    record = json.loads(next((tmp_path / "cache").glob("*.json")).read_text())
    content = next((tmp_path / "cache").glob("*.xnnpack")).read_bytes()
    assert record["sha256"] == hashlib.sha256(content).hexdigest()
