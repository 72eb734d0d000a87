"""Weights and interfaces of ONNX files: payloads that do not fit, odd element types, weights in other files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.artifacts import TensorSpec
from edgekit.converters.onnx_model import load_onnx, parse_onnx
from edgekit.converters.onnx_to_litert import to_litert
from edgekit.errors import BadModel
from tests.onnx_files import FLOATS, add_weight, info, read, refusal
from tests.ops.harness import assert_same, reference, run_litert

# -- tensors ---------------------------------------------------------------------------------------------------------


def _shorter(tensor: onnx.TensorProto) -> None:
    tensor.raw_data = tensor.raw_data[:-1]


def _negative(tensor: onnx.TensorProto) -> None:
    tensor.dims[0] = -3


def _astronomic(tensor: onnx.TensorProto) -> None:
    tensor.dims.extend([2**40, 2**40])


def _unknown_dtype(tensor: onnx.TensorProto) -> None:
    tensor.data_type = 99


def _no_dtype(tensor: onnx.TensorProto) -> None:
    tensor.data_type = 0


def _no_data(tensor: onnx.TensorProto) -> None:
    tensor.ClearField("raw_data")


def _short_list(tensor: onnx.TensorProto) -> None:
    tensor.ClearField("raw_data")
    tensor.float_data.extend([1, 2])


def _strings(tensor: onnx.TensorProto) -> None:
    tensor.data_type = TensorProto.STRING


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_shorter, r"'w' \[3\] needs 12 bytes and has 11"),
        (_negative, r"negative dimension \[-3\]"),
        (_astronomic, "needs 14507109835375550096474112 bytes and has 12"),
        (_unknown_dtype, "unknown element type 99"),
        (_no_dtype, "unknown element type 0"),
        (_no_data, "'w' cannot be read"),
        (_short_list, "'w' cannot be read"),
        (_strings, r"'w' \[3\] has 0 strings"),
    ],
)
@pytest.mark.parametrize("place", ["initializer", "Constant", "subgraph"])
def test_weight_that_is_not_what_it_says(change: Callable[[onnx.TensorProto], None], message: str, place: str) -> None:
    model = add_weight(change)
    if place != "initializer":
        constant = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(FLOATS, "w"))
        constant.attribute[0].t.CopyFrom(model.graph.initializer[0])
        nodes = [constant]
        if place == "subgraph":
            branch = helper.make_graph([constant], "branch", [], [info("w", [3])])
            nodes = [helper.make_node("If", ["x"], ["w"], then_branch=branch, else_branch=branch)]
        del model.graph.initializer[:]
        model.graph.node.insert(0, nodes[0])
    with pytest.raises(BadModel, match=message):
        read(model)


@pytest.mark.parametrize(
    ("dtype", "values", "size_bytes"),
    [
        (TensorProto.INT4, 3, 2),
        (TensorProto.UINT4, 4, 2),
        (TensorProto.FLOAT4E2M1, 5, 3),
        (TensorProto.FLOAT16, 3, 6),
        (TensorProto.BFLOAT16, 3, 6),
        (TensorProto.FLOAT8E4M3FN, 3, 3),
        (TensorProto.BOOL, 3, 3),
        (TensorProto.DOUBLE, 3, 24),
        (TensorProto.COMPLEX64, 3, 24),
    ],
)
def test_bytes_of_each_element_type(dtype: int, values: int, size_bytes: int) -> None:
    def change(tensor: onnx.TensorProto, extra: int = 0) -> None:
        tensor.data_type, tensor.raw_data = dtype, bytes(size_bytes + extra)
        tensor.dims[0] = values

    assert read(add_weight(change)).inputs
    assert "needs" in refusal(add_weight(lambda tensor: change(tensor, 1)))


def test_tensors_without_elements() -> None:
    def empty(tensor: onnx.TensorProto) -> None:
        tensor.dims[0], tensor.raw_data = 0, b""

    model = add_weight(empty)
    assert read(model).inputs
    model.graph.initializer[0].ClearField("raw_data")
    assert read(model).inputs
    for value in (model.graph.input[0], model.graph.output[0]):
        value.CopyFrom(info(value.name, [2, 0]))
    assert read(model).inputs == (TensorSpec("x", "float32", (2, 0)),)


def test_sparse_weights_are_refused_by_name() -> None:
    model = add_weight()
    sparse = onnx.SparseTensorProto(dims=[3])
    sparse.values.CopyFrom(numpy_helper.from_array(FLOATS[1:], "w"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.array([1, 2], np.int64), "w/indices"))
    del model.graph.initializer[:]
    model.graph.sparse_initializer.append(sparse)
    assert "'w' is stored sparse" in refusal(model)
    del model.graph.sparse_initializer[:]
    model.graph.node.insert(0, helper.make_node("Constant", [], ["w"], sparse_value=sparse))
    assert "stored sparse" in refusal(model)


# -- interface -------------------------------------------------------------------------------------------------------


def test_inputs_that_are_weights_are_no_inputs() -> None:
    """Before IR version 4 every initializer was listed as an input."""
    model = read(add_weight(inputs=["w", "x"], ir=3))
    assert [spec.name for spec in model.inputs] == ["x"]
    conversion = to_litert(model)
    assert [spec.name for spec in conversion.model.inputs] == ["x"]
    x = np.ones((2, 3), np.float32)
    assert_same(run_litert(conversion, {"x": x}), [x + FLOATS], 1e-7)


def test_dimensions() -> None:
    model = add_weight()
    model.graph.input[0].CopyFrom(info("x", ["batch", 3]))
    model.graph.input[0].type.tensor_type.shape.dim.add()
    model.graph.input[0].type.tensor_type.shape.dim.add(dim_value=-7)
    assert read(model).inputs == (TensorSpec("x", "float32", (-1, 3, -1, -1)),)
    model.graph.input[0].CopyFrom(info("x", [2**31, 3]))
    assert f"'x' has the shape [{2**31}, 3]" in refusal(model)


def _sequence() -> onnx.ValueInfoProto:
    return helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, None)


def _optional() -> onnx.ValueInfoProto:
    inner = helper.make_tensor_type_proto(TensorProto.FLOAT, [1])
    return helper.make_value_info("x", helper.make_optional_type_proto(inner))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (_sequence(), "'x' is a sequence_type. Inputs and outputs must be tensors"),
        (_optional(), "'x' is a optional_type. Inputs and outputs must be tensors"),
        (onnx.ValueInfoProto(name="x"), "'x' is a value without a type"),
        (info("x", [1], 99), "'x' has the unknown element type 99"),
    ],
)
@pytest.mark.parametrize("side", ["input", "output"])
def test_interface_of_something_else_than_tensors(value: onnx.ValueInfoProto, message: str, side: str) -> None:
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [info("x")], [info("y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    value.name = {"input": "x", "output": "y"}[side]
    getattr(model.graph, side)[0].CopyFrom(value)
    assert message.replace("'x'", f"'{value.name}'") in refusal(model)


# -- weights in other files ------------------------------------------------------------------------------------------


def _external(location: str, **entries: str) -> Callable[[onnx.TensorProto], None]:
    def change(tensor: onnx.TensorProto) -> None:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, **entries}.items():
            tensor.external_data.add(key=key, value=value)

    return change


def _saved(model: onnx.ModelProto, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    return folder / "m.onnx"


def test_external_weights_are_inlined(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    path = _saved(add_weight(_external("w.bin", offset="4", length="12")), folder)
    (folder / "w.bin").write_bytes(b"head" + FLOATS.tobytes() + b"tail")
    model = load_onnx(path)
    (folder / "w.bin").unlink()
    proto = parse_onnx(model.data, self_contained=True)
    assert proto.graph.initializer[0].data_location == TensorProto.DEFAULT
    assert not proto.graph.initializer[0].external_data
    x = np.ones((2, 3), np.float32)
    assert_same(run_litert(to_litert(model), {"x": x}), reference(proto, {"x": x}), 1e-7)
    np.testing.assert_array_equal(reference(proto, {"x": x})[0], x + FLOATS)


def test_external_weights_of_constants_and_subgraphs_are_inlined(tmp_path: Path) -> None:
    model = add_weight(_external("w.bin"))
    constant = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(FLOATS, "w"))
    constant.attribute[0].t.CopyFrom(model.graph.initializer[0])
    del model.graph.initializer[:]
    model.graph.node.insert(0, constant)
    path = _saved(model, tmp_path)
    (tmp_path / "w.bin").write_bytes(FLOATS.tobytes())
    inlined = parse_onnx(load_onnx(path).data, self_contained=True).graph.node[0].attribute[0].t
    np.testing.assert_array_equal(numpy_helper.to_array(inlined), FLOATS)


def test_external_weights_that_were_not_inlined_are_never_read() -> None:
    model = read(add_weight(_external("w.bin")))
    with pytest.raises(BadModel, match="'w' lies in another file"):
        to_litert(model)


@pytest.mark.parametrize(
    ("location", "entries"),
    [
        ("absent.bin", {}),
        ("../secret.bin", {}),
        ("sub/../../secret.bin", {}),
        ("ABSOLUTE", {}),
        ("", {}),
        (".", {}),
        ("link.bin", {}),
        ("a\0b", {}),
        ("a" * 5000, {}),
        ("w.bin", {"offset": "100"}),
        ("w.bin", {"offset": "-4"}),
        ("w.bin", {"offset": "abc"}),
        ("w.bin", {"offset": "0", "length": "8"}),
        ("w.bin", {"offset": "0", "length": "80"}),
        ("w.bin", {"offset": "0", "length": str(2**60)}),
    ],
)
def test_external_weights_that_are_absent_or_elsewhere(tmp_path: Path, location: str, entries: dict[str, str]) -> None:
    (tmp_path / "secret.bin").write_bytes(FLOATS.tobytes())
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "w.bin").write_bytes(FLOATS.tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    location = str(tmp_path / "secret.bin") if location == "ABSOLUTE" else location
    path = _saved(add_weight(_external(location, **entries)), folder)
    with pytest.raises(BadModel, match=r"external weights .*m\.onnx"):
        load_onnx(path)
