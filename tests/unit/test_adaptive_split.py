"""Stages in a row answer as the whole network does, in ONNX Runtime and in LiteRT, wherever the exits are."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgekit.adaptive import split
from edgekit.adaptive.litert_stages import pack_stages
from edgekit.artifacts import LiteRTModel, OnnxModel
from edgekit.converters.onnx_to_litert import to_litert
from edgekit.converters.quantize import open_samples, quantize
from edgekit.errors import BadRecipe, UnknownName
from edgekit.recipe import ConvertRecipe, QuantRecipe, QuantRule
from tests.unit.adaptive_nets import Net, chain_litert, image, run_onnx, two_exits

SIDE = 12
STATIC8 = QuantRecipe(rules=(QuantRule("static8"),))


@st.composite
def networks(draw: st.DrawFn) -> tuple[OnnxModel, list[str]]:
    """Blocks with and without shortcuts, an exit behind some; with or without running logits and sizes read at run
    time; the image may be read once more inside."""
    net = Net(draw(st.integers(0, 1000)))
    carry, by_shape = draw(st.booleans()), draw(st.booleans())
    value, exits = net.node("Relu", net.conv("x", 3, 6, 2)), list[str]()
    blocks = draw(st.integers(2, 4))
    for number in range(blocks):
        before, inner = value, net.conv(value, 6, 6)
        kind = draw(st.sampled_from(["plain", "shortcut", "late activation", "image"]))
        if kind == "shortcut":
            value = net.node("Add", before, net.node("Relu", inner))
        elif kind == "late activation":
            value = net.node("Add", inner, net.node("Relu", inner))
        elif kind == "image":
            value = net.node("Add", inner, net.conv("x", 3, 6, 2))
        else:
            value = net.node("Relu", inner)
        if number == blocks - 1 or draw(st.booleans()):
            seen = inner if draw(st.booleans()) and number < blocks - 1 else value
            logits = net.head(seen, 6, by_shape)
            exits.append(net.node("Add", logits, exits[-1]) if carry and exits else logits)
    names = [f"exit{number}" for number in range(len(exits))]
    return net.model(exits), names


def lowered(model: OnnxModel, side: int = SIDE) -> LiteRTModel:
    made = to_litert(model, ConvertRecipe(shapes={"x": (1, 3, side, side)})).model
    assert isinstance(made, LiteRTModel)
    return made


def close(got: object, want: np.ndarray) -> None:
    np.testing.assert_allclose(np.asarray(got), want, rtol=0, atol=1e-4 * max(float(np.ptp(want)), 1e-3))


@settings(max_examples=25, deadline=None)
@given(networks())
def test_stages_of_a_random_network_answer_as_the_whole(network: tuple[OnnxModel, list[str]]) -> None:
    model, exits = network
    want = run_onnx(model, {"x": image(SIDE)})
    values = {"x": image(SIDE)}
    for stage in split(model, exits):
        values |= run_onnx(stage.model, values)
    whole = lowered(model)
    packed, signatures = pack_stages({"r": whole}, exits)
    chained = chain_litert(packed.data, signatures["r"], image(SIDE))
    alone = chain_litert(whole.data, whole.signatures, image(SIDE))
    for name in exits:
        close(values[name], want[name])
        close(chained[name], want[name])
        np.testing.assert_array_equal(chained[name], alone[name])


@settings(max_examples=6, deadline=None)
@given(networks())
def test_stages_in_int8_give_the_bits_of_the_whole(network: tuple[OnnxModel, list[str]]) -> None:
    model, exits = network
    samples = np.random.default_rng(1).standard_normal((4, SIDE, SIDE, 3)).astype(np.float32)
    whole = lowered(model)
    whole = quantize(whole, STATIC8, open_samples(samples, whole.inputs))
    packed, signatures = pack_stages({"r": whole}, exits)
    chained = chain_litert(packed.data, signatures["r"], image(SIDE))
    alone = chain_litert(whole.data, whole.signatures, image(SIDE))
    for name in exits:
        np.testing.assert_array_equal(chained[name], alone[name])


def test_logits_that_the_next_exit_reads_stay_integers_inside() -> None:
    net = Net(1)
    value = net.node("Relu", net.conv("x", 3, 6, 2))
    shallow = net.head(value, 6)
    deep = net.node("Add", net.head(net.node("Relu", net.conv(value, 6, 6)), 6), shallow)
    model = net.model([shallow, deep])
    whole = lowered(model)
    samples = np.concatenate([image(SIDE, seed).transpose(0, 2, 3, 1) for seed in range(8)])
    quantized = quantize(whole, STATIC8, open_samples(samples, whole.inputs))
    packed, signatures = pack_stages({"r": quantized}, ["exit0", "exit1"])
    assert {spec.dtype for spec in signatures["r"][1].inputs} == {"int8"}
    got, want = chain_litert(packed.data, signatures["r"], image(SIDE)), run_onnx(model, {"x": image(SIDE)})
    for name, answer in want.items():
        np.testing.assert_allclose(got[name], answer, atol=0.1 * float(np.ptp(answer)))


def test_resolutions_and_stages_share_weights_and_scales() -> None:
    model, exits = two_exits(), ["exit0", "exit1"]
    wholes = {f"r{side}": lowered(model, side) for side in (8, 12, 16, 20)}
    packed, _ = pack_stages(wholes, exits)
    assert [signature.name for signature in packed.signatures] == [f"{name}s{k}" for name in wholes for k in (0, 1)]
    weights = sum(tensor.ByteSize() for tensor in onnx.load_model_from_string(model.data).graph.initializer)
    grown = len(packed.data) - len(wholes["r8"].data)
    assert grown < weights, "a second copy of the weights would not be smaller"
    samples = {name: np.random.default_rng(1).standard_normal((3, *whole.inputs[0].shape[1:])).astype(np.float32)
               for name, whole in wholes.items()}
    quantized = {name: quantize(whole, STATIC8, open_samples(samples[name], whole.inputs))
                 for name, whole in wholes.items()}
    int8, signatures = pack_stages(quantized, exits)
    carried = signatures["r8"][1].inputs[0]
    assert (carried.dtype, carried.shape) == ("int8", (1, 4, 4, 8))
    alone, _ = pack_stages({"r8": quantized["r8"]}, exits)
    for name, side in (("r8", 8), ("r20", 20)):
        got = chain_litert(int8.data, signatures[name], image(side))
        want = chain_litert(quantized[name].data, quantized[name].signatures, image(side))
        np.testing.assert_array_equal(got["exit1"], want["exit1"])
    kernel = int8_weights(model)
    assert kernel
    assert all(int8.data.count(bytes_) == alone.data.count(bytes_) == 1 for bytes_ in kernel)


def int8_weights(model: OnnxModel) -> list[bytes]:
    """The kernels of the two convolutions as the quantizer stores them: symmetric, by channel, N, H, W, C."""
    found = []
    for tensor in onnx.load_model_from_string(model.data).graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.ndim == 4:
            scales = np.abs(array).max(axis=(1, 2, 3), keepdims=True) / 127
            found.append(np.round(array / scales).astype(np.int8).transpose(0, 2, 3, 1).tobytes())
    return found


def test_a_stage_of_an_onnx_graph_holds_its_own_nodes_and_weights_only() -> None:
    first, second = split(two_exits(SIDE), ["exit0", "exit1"])
    assert [spec.name for spec in first.model.inputs] == ["x"]
    assert [spec.name for spec in first.model.outputs][-1] == first.logits == "exit0"
    assert [spec.name for spec in second.model.outputs] == ["exit1"]
    kinds = [each.op_type for each in onnx.load_model_from_string(second.model.data).graph.node]
    assert kinds == ["Conv", "Relu", "GlobalAveragePool", "Flatten", "Gemm"]
    names = [{tensor.name for tensor in onnx.load_model_from_string(stage.model.data).graph.initializer}
             for stage in (first, second)]
    assert all(names)
    assert not names[0] & names[1]


def test_sizes_are_read_again_instead_of_carried() -> None:
    net = Net(5)
    value = net.node("Relu", net.conv("x", 3, 6))
    shallow = net.head(value, 6, by_shape=True)
    sizes = net.node("Shape", value)
    deep = net.node("Reshape", net.node("Reshape", net.conv(value, 6, 6), sizes), sizes)
    stages = split(net.model([shallow, net.head(deep, 6)]), ["exit0", "exit1"])
    assert [spec.dtype for spec in stages[1].model.inputs] == ["float32"]


def test_split_names_what_is_wrong() -> None:
    model = two_exits()
    with pytest.raises(UnknownName, match=r"exit2.*\n?.*exit0, exit1"):
        split(model, ["exit0", "exit2"])
    with pytest.raises(UnknownName, match="relu"):
        split(model, ["relu_2"])
    with pytest.raises(BadRecipe, match="twice"):
        split(model, ["exit0", "exit0"])
    with pytest.raises(UnknownName, match="exit9"):
        pack_stages({"r": lowered(model)}, ["exit9"])


def branching() -> OnnxModel:
    """Between the exits, a branch that depends on the image."""
    net = Net(9)
    value = net.node("Relu", net.conv("x", 3, 6))
    condition = net.node("Greater", net.node("ReduceMax", value, keepdims=0), net.constant(np.array(1, np.float32)))
    out = helper.make_tensor_value_info("r", TensorProto.FLOAT, [1, 6, SIDE, SIDE])
    bodies = [helper.make_graph([helper.make_node(kind, [value], ["r"])], kind, [], [out]) for kind in ("Relu", "Neg")]
    chosen = net.node("If", condition, then_branch=bodies[0], else_branch=bodies[1])
    return net.model([net.head(value, 6), net.head(chosen, 6)], SIDE)


def test_branches_are_split_for_onnx_and_refused_for_litert() -> None:
    model = branching()
    want, values = run_onnx(model, {"x": image(SIDE)}), {"x": image(SIDE)}
    for stage in split(model, ["exit0", "exit1"]):
        values |= run_onnx(stage.model, values)
    close(values["exit1"], want["exit1"])
    whole = to_litert(model).model
    assert isinstance(whole, LiteRTModel)
    with pytest.raises(BadRecipe, match="control flow"):
        pack_stages({"r": whole}, ["exit0", "exit1"])
