"""LSTM, GRU and RNN beyond one node: networks, both of LiteRT's interfaces, resizes, long sequences, the rewrites."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from ai_edge_litert import compiled_model
from ai_edge_litert.interpreter import Interpreter
from onnx import TensorProto, helper, numpy_helper

from edgekit.artifacts import Array, Conversion
from edgekit.errors import UnsupportedOps
from tests.ops.harness import assert_same, build, convert, reference, run_litert

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_NOWHERE = "/nonexistent"  # else the environment looks for vendors' plugins


class Net:
    """A network of recurrent layers over "x", put together node by node."""

    def __init__(self, shape: list[int | str], seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self._shape = shape
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def constant(self, array: Array) -> str:
        name = f"constant{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(array, name))
        return name

    def weights(self, *shape: int) -> str:
        return self.constant((self._rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32))

    def node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(op, inputs, [output], name=f"{op}_{output}", **attributes))
        return output

    def layer(self, op: str, x: str, sizes: tuple[int, int], outputs: list[str], **attributes: Any) -> None:
        width, hidden = sizes
        count = 2 if attributes.get("direction") == "bidirectional" else 1
        gates = _GATES[op] * hidden
        given = [self.weights(count, gates, width), self.weights(count, gates, hidden), self.weights(count, 2 * gates)]
        self._nodes.append(
            helper.make_node(op, [x, *given], outputs, name=outputs[0], hidden_size=hidden, **attributes)
        )

    def model(self, *outputs: str, opset: int = 17) -> onnx.ModelProto:
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, self._shape)
        return build(self._nodes, [x], outputs, self._constants, opset)


def two_layers(batch: int, hidden: tuple[int, int], **attributes: Any) -> Net:
    """Two LSTM layers over (12, batch, 6) as torch exports them, batch first, with a linear layer on the last step."""
    net = Net([batch, 12, 6])
    net.node("Transpose", ["x"], "t", perm=[1, 0, 2])
    net.layer("LSTM", "t", (6, hidden[0]), ["y1", "h1", "c1"], **attributes)
    net.node("Transpose", ["y1"], "y1t", perm=[0, 2, 1, 3])
    net.node("Reshape", ["y1t", net.constant(np.array([0, 0, -1]))], "mid")
    net.layer("LSTM", "mid", (hidden[0], hidden[1]), ["y2", "h2", "c2"], **attributes)
    net.node("Squeeze", ["y2", net.constant(np.array([1]))], "steps")
    net.node("Transpose", ["steps"], "all", perm=[1, 0, 2])
    net.node("Gather", ["all", net.constant(np.array(-1))], "last", axis=1)
    net.node("Gemm", ["last", net.weights(hidden[1], 5)], "out")
    return net


def feed(*shape: int) -> dict[str, Array]:
    """Random input."""
    return {"x": np.random.default_rng(1).standard_normal(shape).astype(np.float32)}


def check(model: onnx.ModelProto, feeds: dict[str, Array]) -> Conversion:
    """LiteRT answers as ONNX Runtime does."""
    conversion = convert(model)
    assert_same(run_litert(conversion, feeds), reference(model, feeds), 2e-6)
    return conversion


def run_compiled(conversion: Conversion, feeds: dict[str, Array], runs: int) -> list[list[Array]]:
    """What CompiledModel answers to the same input, run after run."""
    environment = compiled_model.Environment.create(compiler_plugin_path=_NOWHERE, dispatch_library_path=_NOWHERE)
    options = compiled_model.Options(cpu_options=compiled_model.CpuOptions(num_threads=1))
    model = compiled_model.CompiledModel.from_buffer(conversion.model.data, environment=environment, options=options)
    key = next(iter(model.get_signature_list()))
    inputs = {name: model.create_input_buffer_by_name(key, name) for name in feeds}
    specs = conversion.model.outputs
    outputs = {spec.name: model.create_output_buffer_by_name(key, spec.name) for spec in specs}
    for name, data in feeds.items():
        inputs[name].write(data)
    results = []
    for _ in range(runs):
        model.run_by_name(key, inputs, outputs)
        read = [outputs[spec.name].read(int(np.prod(spec.shape)), np.dtype(spec.dtype)) for spec in specs]
        results.append([np.array(flat).reshape(spec.shape) for flat, spec in zip(read, specs, strict=True)])
    return results


@pytest.mark.parametrize("hidden", [(8, 8), (16, 4), (96, 64)])
def test_two_layers_give_the_same_answer_run_after_run_in_both_interfaces(hidden: tuple[int, int]) -> None:
    model, feeds = two_layers(1, hidden).model("out"), feed(1, 12, 6)
    conversion = check(model, feeds)
    interpreter = Interpreter(model_content=conversion.model.data)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], feeds["x"])
    answers = []
    for _ in range(2):
        interpreter.invoke()
        answers.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).copy())
    np.testing.assert_array_equal(answers[0], answers[1])
    first, second = run_compiled(conversion, feeds, 2)
    np.testing.assert_array_equal(first[0], second[0])
    assert_same(first, reference(model, feeds), 2e-6)


def test_small_layers_share_a_loop_of_few_ops_and_large_ones_do_not() -> None:
    small = check(two_layers(1, (8, 8)).model("out"), feed(1, 12, 6)).op_counts
    assert (small["WHILE"], small["FULLY_CONNECTED"]) == (1, 3)
    assert sum(small.values()) <= 24
    assert "DYNAMIC_UPDATE_SLICE" not in small  # only the last step is read
    large = check(two_layers(1, (96, 64)).model("out"), feed(1, 12, 6)).op_counts
    assert large["WHILE"] == 2


def test_layers_that_do_not_fit_into_one_loop_stay_apart() -> None:
    assert check(two_layers(1, (8, 8), clip=1.0).model("out"), feed(1, 12, 6)).op_counts["WHILE"] == 2
    assert check(two_layers(3, (8, 8), direction="reverse").model("out"), feed(3, 12, 6)).op_counts["WHILE"] == 2
    # somebody else reads what lies between
    assert check(two_layers(1, (8, 8)).model("out", "mid"), feed(1, 12, 6)).op_counts["WHILE"] == 2
    assert check(two_layers(1, (8, 8)).model("out", "h1"), feed(1, 12, 6)).op_counts["WHILE"] == 2


@pytest.mark.parametrize("outputs", [("all",), ("h2",), ("c2", "out"), ("all", "h2", "c2")])
@pytest.mark.parametrize("opset", [13, 17])
def test_joint_layers_give_all_outputs_of_the_second(outputs: tuple[str, ...], opset: int) -> None:
    conversion = check(two_layers(2, (8, 5)).model(*outputs, opset=opset), feed(2, 12, 6))
    assert conversion.op_counts["WHILE"] == 1


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("index", [-1, 11])
def test_the_last_step_is_read_from_the_state(op: str, index: int) -> None:
    net = Net([12, 2, 6])
    net.layer(op, "x", (6, 8), ["y"])
    net.node("Squeeze", ["y", net.constant(np.array([1]))], "steps")
    net.node("Gather", ["steps", net.constant(np.array(index))], "last", axis=0)
    assert "DYNAMIC_UPDATE_SLICE" not in check(net.model("last"), feed(12, 2, 6)).op_counts


def test_the_last_step_as_a_slice_and_other_steps() -> None:
    net = Net([12, 2, 6])
    net.layer("GRU", "x", (6, 8), ["y"])
    net.node("Squeeze", ["y", net.constant(np.array([1]))], "steps")
    net.node("Transpose", ["steps"], "batch_first", perm=[1, 0, 2])
    ends = [net.constant(np.array([value])) for value in (-1, 2**31 - 1, 1)]
    net.node("Slice", ["batch_first", *ends], "last")
    assert "DYNAMIC_UPDATE_SLICE" not in check(net.model("last"), feed(12, 2, 6)).op_counts
    net.node("Gather", ["last", net.constant(np.array(0))], "only", axis=0)
    both = check(net.model("only", "batch_first"), feed(12, 2, 6)).op_counts  # the other steps are read as well
    assert both["DYNAMIC_UPDATE_SLICE"] == 1
    backward = Net([12, 2, 6])
    backward.layer("GRU", "x", (6, 8), ["y"], direction="reverse")
    backward.node("Gather", ["y", backward.constant(np.array(-1))], "first", axis=0)
    assert check(backward.model("first"), feed(12, 2, 6)).op_counts["DYNAMIC_UPDATE_SLICE"] == 1


def test_a_last_step_that_a_branch_reads_stays() -> None:
    net = Net([12, 2, 6])
    net.layer("GRU", "x", (6, 8), ["y"])
    last = helper.make_node("Gather", ["y", net.constant(np.array(-1))], ["r"], axis=0)
    zero = helper.make_node("Sub", ["x", "x"], ["zero"])
    keep = helper.make_node("ReduceSum", ["zero"], ["r"])
    outputs = [helper.make_tensor_value_info("r", TensorProto.FLOAT, [1, 2, 8])]
    then = helper.make_graph([last], "then", [], outputs)
    one = [helper.make_tensor_value_info("r", TensorProto.FLOAT, [1, 1, 1])]
    otherwise = helper.make_graph([zero, keep], "else", [], one)
    net.node("ReduceMax", ["x"], "most", keepdims=0)
    net.node("Greater", ["most", net.constant(np.array(0, np.float32))], "flag")
    net.node("If", ["flag"], "out", then_branch=then, else_branch=otherwise)
    assert check(net.model("out"), feed(12, 2, 6)).op_counts["DYNAMIC_UPDATE_SLICE"] == 1


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_batch_and_time_change_from_run_to_run(op: str, direction: str) -> None:
    net = Net(["time", "batch", 6])
    net.layer(op, "x", (6, 8), ["y", "h"], direction=direction)
    model = net.model("y", "h")
    interpreter = Interpreter(model_content=convert(model).model.data)
    place = interpreter.get_input_details()[0]["index"]
    for shape in ((7, 2, 6), (3, 5, 6), (1, 1, 6), (20, 1, 6), (7, 2, 6)):
        feeds = feed(*shape)
        interpreter.resize_tensor_input(place, shape)
        interpreter.allocate_tensors()
        for _ in range(2):
            interpreter.set_tensor(place, feeds["x"])
            interpreter.invoke()
            made = [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]
            assert_same(made, reference(model, feeds), 2e-6)


@pytest.mark.parametrize("steps", [400, 401, 419])  # 419 is a prime
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_long_sequences_are_written_in_blocks(steps: int, direction: str) -> None:
    net = Net([steps, 1, 4])
    net.layer("LSTM", "x", (4, 24), ["y", "h", "c"], direction=direction)
    model, feeds = net.model("y", "h", "c"), feed(steps, 1, 4)
    conversion = check(model, feeds)
    assert conversion.op_counts["WHILE"] == 2
    assert_same(run_compiled(conversion, feeds, 2)[1], reference(model, feeds), 2e-6)


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("steps", [1, 6])
def test_batch_first_is_the_same_as_transposing(op: str, direction: str, steps: int) -> None:
    """ONNX Runtime has no batchwise layout: the reference is the other layout between transposes."""
    by_time, by_batch = Net(["t", 3, 6]), Net([3, steps, 6])
    for net, layout in ((by_time, 0), (by_batch, 1)):
        outputs = ["y", "h", "c"] if op == "LSTM" else ["y", "h"]
        net.layer(op, "x", (6, 8), outputs, direction=direction, layout=layout)
    feeds = feed(3, steps, 6)
    names = ("y", "h", "c") if op == "LSTM" else ("y", "h")
    y, *states = reference(by_time.model(*names), {"x": feeds["x"].transpose(1, 0, 2)})
    wanted = [y.transpose(2, 0, 1, 3), *(state.transpose(1, 0, 2) for state in states)]
    assert_same(run_litert(convert(by_batch.model(*names)), feeds), wanted, 2e-6)


def test_weights_of_body_and_zeros_do_not_swell_the_file() -> None:
    net = Net([300, 1, 8])
    net.layer("LSTM", "x", (8, 64), ["y"])
    assert len(convert(net.model("y")).model.data) < 4 * (4 * 64 * (8 + 64 + 2)) * 1.2


def test_unknown_activations_are_refused_with_the_known_ones() -> None:
    net = Net([4, 1, 3])
    net.layer("RNN", "x", (3, 2), ["y"], activations=["Elu"])
    with pytest.raises(UnsupportedOps, match=r"'y' \(RNN\).*'Elu'.*Affine, HardSigmoid"):
        convert(net.model("y"))
    net = Net([4, 1, 3])
    net.layer("RNN", "x", (3, 2), ["y"], activations=["ScaledTanh"])
    with pytest.raises(UnsupportedOps, match="has no alpha"):
        convert(net.model("y"))
