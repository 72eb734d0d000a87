"""Sessions on real engines, with raw models."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgekit.artifacts import Engine, TensorSpec
from edgekit.errors import BadInput, BadModel, EngineError, MissingExtra, UnknownName, UserError
from edgekit.runtime.engines import ENGINES, Session, is_available, open_session
from edgekit.runtime.engines.compiled import CompiledSession
from edgekit.runtime.engines.litert import import_interpreter
from tests.runtime_models import LiteGraph, colour_onnx, colour_tflite, conv_tflite, pair_tflite, rnn_tflite

SHA = "0" * 64


@pytest.fixture(params=ENGINES)
def colour(request: pytest.FixtureRequest) -> Iterator[Session]:
    engine: Engine = request.param
    with open_session(engine, colour_tflite() if engine == "litert" else colour_onnx()) as session:
        yield session


def stored(session: Session, image: np.ndarray) -> dict[str, np.ndarray]:
    """An image (N, H, W, 3) in the order of the session."""
    return {"image": image if session.engine == "litert" else np.ascontiguousarray(image.transpose(0, 3, 1, 2))}


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def test_the_specs_are_those_of_the_model(colour: Session) -> None:
    shape = (-1, -1, -1, 3) if colour.engine == "litert" else (-1, 3, -1, -1)
    assert colour.inputs == (TensorSpec("image", "float32", shape),)
    assert colour.outputs == (TensorSpec("scores", "float32", (-1, 3)),)
    assert colour.engine_version.startswith("ai-edge-litert " if colour.engine == "litert" else "onnxruntime ")


def test_any_sequence_of_sizes_gives_the_right_means(colour: Session) -> None:
    for shape in ((1, 4, 6, 3), (1, 9, 2, 3), (5, 4, 6, 3), (1, 4, 6, 3), (1, 1, 1, 3)):
        image = images(*shape)
        got = colour.run(stored(colour, image))["scores"]
        np.testing.assert_allclose(got, image.mean((1, 2)), rtol=1e-5, atol=1e-6)


def test_a_view_that_is_not_contiguous_is_read_in_its_own_order(colour: Session) -> None:
    image = images(2, 5, 7, 3)
    axes, back = ((0, 3, 1, 2), (0, 2, 3, 1)) if colour.engine == "litert" else ((0, 1, 2, 3), (0, 3, 1, 2))
    view = np.ascontiguousarray(image.transpose(axes)).transpose(back)
    assert not view.flags.c_contiguous
    np.testing.assert_allclose(colour.run({"image": view})["scores"], image.mean((1, 2)), rtol=1e-5, atol=1e-6)


def test_answers_are_the_callers_own(colour: Session) -> None:
    first = colour.run(stored(colour, images(1, 4, 6, 3)))["scores"]
    kept = first.copy()
    colour.run(stored(colour, images(1, 4, 5, 3)))
    np.testing.assert_array_equal(first, kept)
    first[:] = 0
    assert colour.run(stored(colour, images(1, 4, 6, 3)))["scores"].any()


def test_wrong_input_never_reaches_the_engine(colour: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(colour, "_execute", lambda _: pytest.fail("the engine was called"))
    good = stored(colour, images(1, 4, 6, 3))["image"]
    nan = good.copy()
    nan[0, 0, 0, 0] = np.nan
    for wrong in ({"image": good.astype(np.float64)}, {"image": good[0]}, {"image": good[:, :2, :, :2]}, {"x": good},
                  {"image": nan}, {}):
        with pytest.raises(BadInput):
            colour.run(wrong)


def test_threads_take_turns(colour: Session) -> None:
    shapes = [(1, 3 + number, 4, 3) for number in range(4)]
    failures: list[str] = []

    def work(shape: tuple[int, ...]) -> None:
        image = images(*shape)
        for _ in range(50):
            got = colour.run(stored(colour, image))["scores"]
            if not np.allclose(got, image.mean((1, 2)), rtol=1e-5, atol=1e-6):
                failures.append(f"{shape}: {got}")

    threads = [threading.Thread(target=work, args=(shape,)) for shape in shapes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_closed_session_says_so(colour: Session) -> None:
    colour.close()
    colour.close()
    with pytest.raises(UserError, match="closed"):
        colour.run(stored(colour, images(1, 4, 6, 3)))
    with pytest.raises(UserError, match="closed"):
        colour.prepare({"image": (1, 4, 6, 3)})


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("data", [b"", b"x", b"no model " * 100])
def test_what_is_no_model_is_an_engine_error_with_the_engines_text(engine: Engine, data: bytes) -> None:
    with pytest.raises(EngineError, match=r"refused the model: .") as caught:
        open_session(engine, data)
    assert caught.value.__cause__ is not None


def test_a_failure_inside_the_engine_leaves_the_session_usable() -> None:
    # The shape fits the specs, but not the graph: a reshape to (2, 6) of 3 * n values.
    graph = LiteGraph()
    x = graph.tensor("x", (1, -1, 3))
    target = graph.tensor("shape", (2,), "int32", data=np.array([2, 6], np.int32))
    y = graph.tensor("y", (2, 6))
    graph.op("RESHAPE", (x, target), (y,))
    with open_session("litert", graph.pack((x,), (y,))) as session:
        for _ in range(2):
            with pytest.raises(EngineError, match="ai-edge-litert"):
                session.run({"x": np.ones((1, 5, 3), np.float32)})
            assert session.run({"x": np.ones((1, 4, 3), np.float32)})["y"].shape == (2, 6)


def test_onnx_runtime_keeps_no_copy_of_the_file_alive() -> None:
    data = colour_onnx()
    before = sys.getrefcount(data)
    with open_session("ort", data) as session:
        assert sys.getrefcount(data) == before
        assert session.run({"image": images(1, 3, 4, 6)})["scores"].shape == (1, 3)


def test_the_ort_format_runs_like_onnx(tmp_path: Path) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "a.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(colour_onnx(), options)
    image = images(2, 3, 5, 7)
    with open_session("ort", (tmp_path / "a.ort").read_bytes(), threads=2) as session:
        np.testing.assert_allclose(session.run({"image": image})["scores"], image.mean((2, 3)), rtol=1e-5, atol=1e-6)


def test_onnx_runtime_failures_are_engine_errors() -> None:
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["c"])], "add",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "ab"],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, ["n"])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    with open_session("ort", model.SerializeToString()) as session:
        feeds = {"a": np.ones(2, np.float32), "b": np.ones(3, np.float32)}
        with pytest.raises(EngineError, match=r"onnxruntime .* failed while running"):
            session.run(feeds)
        feeds["b"] = feeds["a"]
        np.testing.assert_array_equal(session.run(feeds)["c"], [2, 2])


def test_recurrent_state_starts_anew_at_every_run() -> None:
    with open_session("litert", rnn_tflite()) as session:
        x = np.array([[[0.5, -0.25]]], np.float32)
        for _ in range(3):
            np.testing.assert_allclose(session.run({"x": x})["y"], np.tanh(x), rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_inputs_keep_the_order_of_the_graph_and_go_by_name(dtype: str) -> None:
    with open_session("litert", pair_tflite(dtype=dtype)) as session:
        assert [spec.name for spec in session.inputs] == ["zebra", "ant"]
        assert [spec.name for spec in session.outputs] == ["sum"]
        first, second = np.arange(4, dtype=dtype)[None], np.full((1, 4), 10, dtype)
        np.testing.assert_array_equal(session.run({"ant": first, "zebra": second})["sum"], first + second)


def test_a_dtype_that_cannot_be_passed_is_refused() -> None:
    graph = LiteGraph()
    x, y = graph.tensor("x", (1, 4), "complex64"), graph.tensor("y", (1, 4))
    graph.op("COMPLEX_ABS", (x,), (y,))
    with pytest.raises(BadModel, match="'x' has the dtype complex64"):
        open_session("litert", graph.pack((x,), (y,)))


def test_a_signature_over_other_tensors_is_refused() -> None:
    graph = LiteGraph()
    x, y, z = (graph.tensor(name, (1, 4)) for name in "xyz")
    graph.op("TANH", (x,), (y,))
    graph.op("TANH", (y,), (z,))
    graph.signature({"x": x}, {"y": y})
    with pytest.raises(BadModel, match="serving_default"):
        open_session("litert", graph.pack((x,), (z,)))


def test_an_unknown_engine_lists_the_known_ones() -> None:
    with pytest.raises(UnknownName, match=r"'tvm'.*Known: litert, ort"):
        open_session("tvm", b"")  # type: ignore[arg-type]


@pytest.fixture
def no_engines(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A process in which importing any engine fails; a test puts in what it wants to be found."""
    for name in list(sys.modules):
        if name.partition(".")[0] in ("ai_edge_litert", "tflite_runtime", "tensorflow", "onnxruntime"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_Blocker(), *sys.meta_path])
    return monkeypatch


class _Blocker:
    def find_spec(self, name: str, _path: object = None, _target: object = None) -> None:
        if name.partition(".")[0] in ("ai_edge_litert", "tflite_runtime", "tensorflow", "onnxruntime"):
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)


def _fake(monkeypatch: pytest.MonkeyPatch, module: str, version: str) -> Any:
    """Put in a package: a module with the class, or (as TensorFlow has it) an attribute that is no module."""
    interpreter = SimpleNamespace(origin=module)
    name, _, rest = module.partition(".")
    parent = ModuleType(name)
    parent.__version__ = version  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, name, parent)
    if name == "tensorflow":
        parent.lite = SimpleNamespace(Interpreter=interpreter)  # type: ignore[attr-defined]
    else:
        child = ModuleType(f"{name}.{rest}")
        child.Interpreter = interpreter  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module, child)
    return interpreter


def test_the_packages_of_litert_are_tried_in_order(no_engines: pytest.MonkeyPatch) -> None:
    no_engines.setattr(np, "__version__", "1.26.4")
    for module, version, name in (("tensorflow", "2.20", "tensorflow 2.20"),
                                  ("tflite_runtime.interpreter", "2.14.0", "tflite-runtime 2.14.0"),
                                  ("ai_edge_litert.interpreter", "2.3.0", "ai-edge-litert 2.3.0")):
        interpreter = _fake(no_engines, module, version)
        assert import_interpreter() == (interpreter, name)


def test_tflite_runtime_is_passed_over_under_numpy_2(no_engines: pytest.MonkeyPatch) -> None:
    """It can be imported there, and fails when the first array is passed."""
    _fake(no_engines, "tflite_runtime.interpreter", "2.14.0")
    no_engines.setattr(np, "__version__", "2.4.6")
    with pytest.raises(MissingExtra, match=r"tflite-runtime 2\.14\.0 needs numpy below 2, and this is 2\.4\.6"):
        import_interpreter()
    tensorflow = _fake(no_engines, "tensorflow", "2.20")
    assert import_interpreter() == (tensorflow, "tensorflow 2.20")


def test_a_package_that_is_broken_is_passed_over_and_named_when_nothing_is_left(
        no_engines: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "tflite_runtime"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "interpreter.py").write_text("raise AttributeError('_ARRAY_API not found')")
    no_engines.syspath_prepend(tmp_path)
    no_engines.setattr(sys, "meta_path", [each for each in sys.meta_path if not isinstance(each, _Blocker)])
    no_engines.setitem(sys.modules, "ai_edge_litert", None)  # makes Python refuse the import
    no_engines.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(MissingExtra, match=r"tflite-runtime: _ARRAY_API not found.*edgekit-sdk\[litert\]"):
        import_interpreter()


def test_without_any_package_the_error_has_the_pip_line(no_engines: pytest.MonkeyPatch) -> None:
    assert no_engines
    with pytest.raises(MissingExtra, match=r"'ai-edge-litert'.*pip install 'edgekit-sdk\[litert\]'"):
        open_session("litert", b"")
    with pytest.raises(MissingExtra, match=r"'onnxruntime'.*pip install 'edgekit-sdk\[ort\]'"):
        open_session("ort", b"")
    assert not is_available("litert")
    assert not is_available("ort")


@pytest.mark.parametrize("model", [conv_tflite(), colour_tflite(4, 6, 1), pair_tflite()])
def test_the_compiled_model_answers_like_the_interpreter_with_a_cold_and_a_warm_cache(tmp_path: Path,
                                                                                      model: bytes) -> None:
    with open_session("litert", model) as session:
        feeds = {spec.name: images(*spec.shape) for spec in session.inputs}
        wanted, inputs, outputs = session.run(feeds), session.inputs, session.outputs
    for _ in range(2):
        with CompiledSession(model, 1, tmp_path, SHA) as compiled:
            assert (compiled.inputs, compiled.outputs) == (inputs, outputs)
            for name, got in compiled.run(feeds).items():
                np.testing.assert_allclose(got, wanted[name], rtol=1e-6, atol=1e-6)


def test_a_damaged_weight_cache_does_not_change_the_answer(tmp_path: Path) -> None:
    model = conv_tflite()
    with CompiledSession(model, 1, tmp_path, SHA) as session:
        feeds = {"image": images(1, 8, 8, 3)}
        wanted = session.run(feeds)["features"]
    cache = next(tmp_path.glob("*.xnnpack"))
    good = cache.read_bytes()
    for place in range(0, len(good), max(1, len(good) // 40)):
        cache.write_bytes(good[:place] + bytes([good[place] ^ 0x40]) + good[place + 1:])
        with CompiledSession(model, 1, tmp_path, SHA) as session:
            np.testing.assert_array_equal(session.run(feeds)["features"], wanted)
    cache.write_bytes(good[: len(good) // 2])
    with CompiledSession(model, 1, tmp_path, SHA) as session:
        np.testing.assert_array_equal(session.run(feeds)["features"], wanted)


def test_what_the_compiled_model_refuses_is_an_engine_error(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="CompiledModel"):
        CompiledSession(rnn_tflite(), 1, tmp_path, SHA)
    assert not list(tmp_path.glob(".*"))


def test_a_disk_without_room_is_not_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(EngineError, match="too full"):
        CompiledSession(conv_tflite(), 1, tmp_path, SHA)
    assert not list(tmp_path.iterdir())
