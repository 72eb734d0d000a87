"""The flatbuffer: alignment, signatures, shapes, sharing of constants, versions, limits; both LiteRT APIs load it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from edgekit.artifacts import Array
from edgekit.converters.onnx_model import describe
from edgekit.converters.onnx_to_litert import SIGNATURE, pack_signatures
from edgekit.converters.onnx_to_litert import writer as writer_module
from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.graph import FIRST_SYMBOL, Graph, Op, Quantization, Tensor
from edgekit.converters.onnx_to_litert.pack import pack_model
from edgekit.converters.onnx_to_litert.writer import write
from edgekit.errors import BadModel, InternalError
from edgekit.recipe import ConvertRecipe
from tests.onnx_graphs import Graph as OnnxGraph
from tests.onnx_graphs import answer, node, weights
from tests.ops.harness import assert_same, convert

FLOAT = np.dtype(np.float32)


def adder(constants: list[Array], name: str = "main") -> Graph:
    """y = ((x + c0) + c1) + ... with ``constants`` that broadcast to x (4, 4)."""
    graph = Graph(name)
    builder = Builder(graph)
    x = result = Tensor("x", FLOAT, (4, 4))
    for data in constants:
        result = builder.binary("ADD", result, Tensor("c", data.dtype, data.shape, data))
    result.name = "y"
    graph.inputs, graph.outputs = [x], [result]
    return graph


def parse(data: bytes) -> Any:
    return schema.ModelT.InitFromPackedBuf(data, 0)


def buffers_of(data: bytes) -> list[tuple[int, int]]:
    """(place in the file, size in bytes) of every buffer that holds something."""
    start = np.frombuffer(data, np.uint8).__array_interface__["data"][0]
    model = schema.Model.GetRootAs(data, 0)
    arrays = [model.Buffers(index).DataAsNumpy() for index in range(model.BuffersLength())]
    return [
        (array.__array_interface__["data"][0] - start, array.size) for array in arrays if isinstance(array, np.ndarray)
    ]


def run(data: bytes, x: Array) -> Array:
    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return np.asarray(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))


# -- buffers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[1], [4, 1, 16], [1, 1, 1, 4, 4, 16, 1]])
def test_every_buffer_is_aligned_to_sixteen_bytes(sizes: list[int]) -> None:
    constants = [weights(4, 4) if size == 16 else weights(size) for size in sizes]
    data = write({SIGNATURE: adder(constants)})
    places = buffers_of(data)
    assert sorted(size for _, size in places) == sorted(4 * size for size in sizes)
    assert [place % 16 for place, _ in places] == [0] * len(sizes)
    x = weights(4, 4)
    np.testing.assert_allclose(run(data, x), x + sum(constants), rtol=0, atol=1e-5)


def test_buffers_of_odd_sizes_and_of_every_dtype_are_aligned_and_whole() -> None:
    """Outputs that are copies of constants: whatever is stored comes back."""
    graph = Graph("main", [Tensor("x", FLOAT, (4, 4))])
    builder = Builder(graph)
    dtypes = ["float32", "float16", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "bool"]
    values = {name: np.arange(size).astype(name) for size, name in enumerate(dtypes, start=3)}
    for name, data in values.items():
        copy = builder.copy(builder.const(data))
        copy.name = name
        graph.outputs.append(copy)
    written = write({SIGNATURE: graph})
    assert {place % 16 for place, _ in buffers_of(written)} == {0}
    interpreter = Interpreter(model_content=written)
    interpreter.allocate_tensors()
    interpreter.invoke()
    for detail in interpreter.get_output_details():
        found = interpreter.get_tensor(detail["index"])
        np.testing.assert_array_equal(found, values[detail["name"]])
        assert found.dtype == values[detail["name"]].dtype


def test_buffer_zero_is_empty_and_belongs_to_what_is_computed() -> None:
    model = parse(write({SIGNATURE: adder([weights(4)])}))
    assert model.buffers[0].data is None or len(model.buffers[0].data) == 0
    (subgraph,) = model.subgraphs
    assert [tensor.buffer == 0 for tensor in subgraph.tensors] == [tensor.name != b"c" for tensor in subgraph.tensors]


def test_constants_in_another_memory_order_are_written_in_c_order() -> None:
    data = np.asfortranarray(weights(4, 4))
    x = weights(4, 4)
    result = run(write({SIGNATURE: adder([data, data[::-1], data.T])}), x)
    np.testing.assert_allclose(result, x + data + data[::-1] + data.T, rtol=0, atol=1e-5)


def test_equal_constants_are_stored_once() -> None:
    small, large = weights(4), weights(64, 4, 4)
    graph = adder([small, small.copy(), large, large])
    sizes = [size for _, size in buffers_of(write({SIGNATURE: graph}))]
    assert sorted(sizes) == [small.nbytes, large.nbytes]


def test_equal_scales_and_zero_points_are_stored_once() -> None:
    channels = 5000
    graph = adder([weights(4), weights(4)])
    for number, tensor in enumerate(op.outputs[0] for op in graph.ops):
        scales = np.full(channels, 0.5 + number, np.float32)
        tensor.quantization = Quantization(scales, np.zeros(channels, np.int64), 1)
    data = write({SIGNATURE: graph})
    assert 2 * 4 * channels + 8 * channels < len(data) < 2 * 4 * channels + 9 * channels
    kept = [tensor.quantization for tensor in parse(data).subgraphs[0].tensors if tensor.quantization is not None]
    assert sorted(float(each.scale[-1]) for each in kept) == [0.5, 1.5]
    assert all(each.zeroPoint.size == channels and not each.zeroPoint.any() for each in kept)


def test_quantizations_that_differ_in_range_only_are_not_mixed_up() -> None:
    graph = adder([weights(4), weights(4)])
    for op in graph.ops:
        op.outputs[0].quantization = Quantization(np.array([0.5], np.float32), np.array([0], np.int64))
    model = parse(write({SIGNATURE: graph}))
    quantized = [tensor.quantization for tensor in model.subgraphs[0].tensors if tensor.quantization is not None]
    for number, each in enumerate(quantized):
        each.max = np.array([number], np.float32)
    again = [tensor.quantization for tensor in parse(pack_model(model)).subgraphs[0].tensors]
    assert [float(each.max[0]) for each in again if each is not None] == [0.0, 1.0]


def test_constants_that_differ_in_dtype_only_are_not_mixed_up() -> None:
    graph = Graph("main", [Tensor("x", FLOAT, (4, 4))])
    builder = Builder(graph)
    for index, (size, dtype) in enumerate([(2, np.float32), (2, np.int32), (1, np.int64)]):
        graph.outputs.append(builder.copy(builder.const(np.zeros(size, dtype))))
        graph.outputs[-1].name = f"y{index}"
    interpreter = Interpreter(model_content=write({SIGNATURE: graph}))
    assert [detail["dtype"] for detail in interpreter.get_output_details()] == [np.float32, np.int32, np.int64]


# -- signatures and shapes -------------------------------------------------------------------------------------------


def test_one_signature_with_the_names_of_the_graph() -> None:
    data = write({SIGNATURE: adder([weights(4)])})
    assert data[4:8] == b"TFL3"
    model = parse(data)
    assert model.version == 3
    assert model.description == b"EdgeKit"
    (signature,) = model.signatureDefs
    assert signature.signatureKey == b"serving_default"
    tensors = model.subgraphs[0].tensors
    assert [(entry.name, tensors[entry.tensorIndex].name) for entry in signature.inputs] == [(b"x", b"x")]
    assert [(entry.name, tensors[entry.tensorIndex].name) for entry in signature.outputs] == [(b"y", b"y")]
    assert list(model.subgraphs[0].inputs) == [entry.tensorIndex for entry in signature.inputs]
    interpreter = Interpreter(model_content=data)
    assert interpreter.get_signature_list() == {"serving_default": {"inputs": ["x"], "outputs": ["y"]}}


def test_shape_signature_is_written_for_dynamic_tensors_only() -> None:
    batch, side = FIRST_SYMBOL, FIRST_SYMBOL - 1
    x, y = Tensor("x", FLOAT, (batch, side, 3, -1)), Tensor("y", FLOAT, (batch, side, 3, -1))
    fixed = Tensor("fixed", FLOAT, (2, 3))
    graph = Graph("main", [x, fixed], [y], [Op("RELU", [x], [y])], {side: 48})
    tensors = {tensor.name: tensor for tensor in parse(write({SIGNATURE: graph})).subgraphs[0].tensors}
    assert list(tensors[b"x"].shapeSignature) == [-1, -1, 3, -1]
    assert list(tensors[b"x"].shape) == [1, 48, 3, 1]
    assert tensors[b"fixed"].shapeSignature is None or len(tensors[b"fixed"].shapeSignature) == 0
    assert list(tensors[b"fixed"].shape) == [2, 3]
    assert all(tensor.hasRank for tensor in tensors.values())
    details = Interpreter(model_content=write({SIGNATURE: graph})).get_input_details()
    assert [list(detail["shape_signature"]) for detail in details] == [[-1, -1, 3, -1], [2, 3]]


def test_signatures_share_equal_weights_and_run_apart() -> None:
    shared = weights(64, 4, 4)
    graphs = {"small": adder([shared, weights(4)]), "large": adder([shared.copy(), weights(4)])}
    data = write(graphs)
    assert len([size for _, size in buffers_of(data) if size == shared.nbytes]) == 1
    interpreter = Interpreter(model_content=data)
    assert list(interpreter.get_signature_list()) == ["small", "large"]
    x = weights(4, 4)
    for name, graph in graphs.items():
        result = interpreter.get_signature_runner(name)(x=x)["y"]
        addend = next(op.inputs[1].data for op in graph.ops[1:] if op.inputs[1] is not None)
        np.testing.assert_allclose(result, x + shared + addend, rtol=0, atol=1e-5)


def test_resolutions_of_one_network_in_one_file() -> None:
    nodes = [node("Conv", "x w", "c", pads=[1, 1, 1, 1]), node("Relu", "c", "r"), node("GlobalAveragePool", "r", "y")]
    graph = OnnxGraph("net", nodes, {"w": weights(96, 4, 3, 3)}, shape=("n", 4, "h", "w"))  # type: ignore[arg-type]
    model = graph.model()
    parts = {f"r{side}": (describe(model), ConvertRecipe(shapes={"x": (1, 4, side, side)})) for side in (8, 12)}
    together, alone = pack_signatures(parts), pack_signatures({SIGNATURE: parts["r8"]})
    assert len(together.model.data) < len(alone.model.data) + 4096
    interpreter = Interpreter(model_content=together.model.data)
    for name, side in (("r8", 8), ("r12", 12)):
        x = weights(1, 4, side, side)
        found = interpreter.get_signature_runner(name)(x=np.moveaxis(x, 1, -1))["y"]
        assert_same([np.moveaxis(found, -1, 1)], answer(model, {"x": x}), 1e-5)


# -- ops -------------------------------------------------------------------------------------------------------------


def test_operator_codes_are_shared_and_carry_versions() -> None:
    x, y, z = (Tensor(name, FLOAT, (1, 4, 4, 2)) for name in "xyz")
    size = Tensor("size", np.dtype(np.int32), (2,), np.array([4, 4], np.int32))
    ops = [
        Op("RESIZE_BILINEAR", [x, size], [y], {"halfPixelCenters": True, "alignCorners": False}),
        Op("GELU", [y], [z], {"approximate": False}),
    ]
    model = parse(
        write({SIGNATURE: Graph("main", [x], [z], [*ops, Op("GELU", [z], [Tensor("u", FLOAT, (1, 4, 4, 2))], {})])})
    )
    assert len(model.operatorCodes) == 2
    bilinear, gelu = model.operatorCodes
    assert (bilinear.builtinCode, bilinear.version) == (schema.BuiltinOperator.RESIZE_BILINEAR, 3)
    assert gelu.builtinCode == schema.BuiltinOperator.GELU > 127
    assert gelu.deprecatedBuiltinCode == 127, "old runtimes read the byte and must not take it for another op"
    assert model.subgraphs[0].operators[0].builtinOptions.halfPixelCenters


def test_missing_optional_inputs_are_written_as_minus_one() -> None:
    x, y = Tensor("x", FLOAT, (2, 3)), Tensor("y", FLOAT, (2, 4))
    kernel = Tensor("w", FLOAT, (4, 3), weights(4, 3))
    graph = Graph("main", [x], [y], [Op("FULLY_CONNECTED", [x, kernel, None], [y])])
    data = write({SIGNATURE: graph})
    assert parse(data).subgraphs[0].operators[0].inputs[2] == -1
    given = weights(2, 3)
    assert kernel.data is not None
    np.testing.assert_allclose(run(data, given), given @ kernel.data.T, rtol=0, atol=1e-5)


def test_mistakes_of_a_lowering_are_internal_errors() -> None:
    x, y = Tensor("x", FLOAT, (2,)), Tensor("y", FLOAT, (2,))
    with pytest.raises(InternalError, match="no field 'nonsense'"):
        write({SIGNATURE: Graph("main", [x], [y], [Op("ADD", [x, x], [y], {"nonsense": 1})])})
    with pytest.raises(InternalError, match="has no options, but was given"):
        write({SIGNATURE: Graph("main", [x], [y], [Op("RELU", [x], [y], {"slope": 1})])})
    odd = Tensor("z", np.dtype(np.complex64), (2,))
    with pytest.raises(InternalError, match="'z' has the dtype complex64"):
        write({SIGNATURE: Graph("main", [x], [odd], [Op("RELU", [x], [odd])])})


# -- limits ----------------------------------------------------------------------------------------------------------


def test_more_than_two_gib_of_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "_MAX_BYTES", 2000)
    assert write({SIGNATURE: adder([weights(4)])})
    with pytest.raises(BadModel, match=r"The weights take .* bytes; a .tflite file holds at most 2 GiB"):
        write({SIGNATURE: adder([weights(32, 4, 4)])})


def test_the_limit_is_that_of_flatbuffers() -> None:
    assert 2**31 - 2**24 < writer_module._MAX_BYTES < 2**31


# -- engines ---------------------------------------------------------------------------------------------------------


def test_interpreter_and_compiled_model_give_the_same_answer(tmp_path: Path) -> None:
    from ai_edge_litert import compiled_model

    nodes = [node("Conv", "x w", "c", pads=[1, 1, 1, 1]), node("Relu", "c", "r"), node("GlobalAveragePool", "r", "p"),
             node("Flatten", "p", "f"), node("Gemm", "f v", "y")]  # fmt: skip
    graph = OnnxGraph("net", nodes, {"w": weights(8, 4, 3, 3), "v": weights(8, 5)})
    model, x = graph.model(), graph.feeds()["x"]
    data = convert(model).model.data
    stored = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    nowhere = str(tmp_path)  # else it looks for the compiler plugins of every vendor
    compiled = compiled_model.CompiledModel.from_buffer(
        data,
        environment=compiled_model.Environment.create(compiler_plugin_path=nowhere, dispatch_library_path=nowhere),
    )
    inputs = {"x": compiled.create_input_buffer_by_name(SIGNATURE, "x")}
    outputs = {"y": compiled.create_output_buffer_by_name(SIGNATURE, "y")}
    inputs["x"].write(stored)
    compiled.run_by_name(SIGNATURE, inputs, outputs)
    found = outputs["y"].read(10, np.dtype(np.float32)).reshape(2, 5)
    wanted = answer(model, {"x": x})
    assert_same([found], wanted, 1e-5)
    assert_same([run(data, stored)], wanted, 1e-5)
