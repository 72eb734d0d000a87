"""Make golden_adaptive.edge, golden_adaptive.json and golden_adaptive_ort.edgeplan. Needs edgekit-sdk[convert].

    python make_golden_adaptive.py

The network looks at a grey image x, at 2 x 2 and at 4 x 4 pixels, in two stages. Both are small enough to work out by
hand, from the answers in the JSON file::

    stage 0:  exit0 = mean(x) * [4, 0, -4] + [-2, 0.5, 2]            squares = x * x, for the next stage
    stage 1:  exit1 = [mean(squares), max(x)] @ [[6, 0, -6], [0, 2, 0]] + [-3, -1, 3]
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from hostile import TEST_SEED
from msgspec.structs import replace

from edgekit.artifacts import LiteRTModel, OnnxModel, TensorSpec
from edgekit.bundle import (
    BlobRef,
    Bundle,
    Gate,
    Ladder,
    Manifest,
    Plan,
    Promise,
    Provenance,
    Route,
    Stage,
    Step,
    TestVector,
    encode_plan,
    ladders_sha256,
    write_bundle,
    write_plan,
)
from edgekit.recipe import ConvertRecipe, Preprocess

FOLDER = Path(__file__).resolve().parent
SIDES = (2, 4)
WEIGHTS = {"w0": np.array([[4, 0, -4]], np.float32), "b0": np.array([-2, 0.5, 2], np.float32),
           "w1": np.array([[6, 0, -6], [0, 2, 0]], np.float32), "b1": np.array([-3, -1, 3], np.float32)}
SHARED = "models/ort.bin"
LABELS = ("light", "grey", "dark")


def answers(x: Any) -> tuple[Any, Any]:
    """The logits of both exits for an image (height, width) of floats."""
    first = x.mean() * WEIGHTS["w0"][0] + WEIGHTS["b0"]
    second = np.array([(x * x).mean(), x.max()]) @ WEIGHTS["w1"] + WEIGHTS["b1"]
    return first.astype(np.float32), second.astype(np.float32)


def _stage(number: int, external: bool) -> bytes:
    """The ONNX file of one stage; ``external``: its weights are a part of the entry that all stages share."""
    from onnx import TensorProto, helper

    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, "height", "width"])
    squares = helper.make_tensor_value_info("squares", TensorProto.FLOAT, [1, 1, "height", "width"])
    exit_ = helper.make_tensor_value_info(f"exit{number}", TensorProto.FLOAT, [1, 3])
    if number == 0:
        nodes = [helper.make_node("Mul", ["image", "image"], ["squares"]),
                 helper.make_node("ReduceMean", ["image"], ["mean"], axes=[2, 3], keepdims=0),
                 helper.make_node("Gemm", ["mean", "w0", "b0"], ["exit0"])]
        graph = helper.make_graph(nodes, "stage0", [image], [exit_, squares], _weights(("w0", "b0"), external))
    else:
        nodes = [helper.make_node("ReduceMean", ["squares"], ["power"], axes=[2, 3], keepdims=0),
                 helper.make_node("ReduceMax", ["image"], ["peak"], axes=[2, 3], keepdims=0),
                 helper.make_node("Concat", ["power", "peak"], ["both"], axis=1),
                 helper.make_node("Gemm", ["both", "w1", "b1"], ["exit1"])]
        graph = helper.make_graph(nodes, "stage1", [image, squares], [exit_], _weights(("w1", "b1"), external))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _weights(names: tuple[str, ...], external: bool) -> list[Any]:
    from onnx import TensorProto, numpy_helper

    found = []
    for name in names:
        tensor = numpy_helper.from_array(WEIGHTS[name], name)
        if external:
            before = list(WEIGHTS)[:list(WEIGHTS).index(name)]
            offset = sum(WEIGHTS[each].nbytes for each in before)
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", SHARED), ("offset", offset), ("length", WEIGHTS[name].nbytes)):
                tensor.external_data.add(key=key, value=str(value))
        found.append(tensor)
    return found


def _litert() -> tuple[bytes, dict[str, tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]]]:
    from edgekit.converters.onnx_model import describe, parse_onnx
    from edgekit.converters.onnx_to_litert import pack_signatures

    parts: dict[str, tuple[OnnxModel, ConvertRecipe]] = {}
    for side in SIDES:
        for number in (0, 1):
            shapes = {"image": (1, 1, side, side)} | ({"squares": (1, 1, side, side)} if number else {})
            model = describe(parse_onnx(_stage(number, external=False)))
            parts[f"r{side}x{side}s{number}"] = (model, ConvertRecipe(shapes=shapes))
    packed = pack_signatures(parts).model
    if not isinstance(packed, LiteRTModel):
        raise TypeError(type(packed))
    return packed.data, {each.name: (each.inputs, each.outputs) for each in packed.signatures}


def _ladders() -> tuple[tuple[Ladder, ...], dict[str, bytes]]:
    """The ladders of both engines, and the entries that they need."""
    data, specs = _litert()
    blobs = {"models/litert.tflite": data, SHARED: b"".join(each.tobytes() for each in WEIGHTS.values())}
    blobs |= {f"models/ort-stage{number}.onnx": _stage(number, external=True) for number in (0, 1)}
    ladders = []
    for side in SIDES:
        stages = tuple(Stage("models/litert.tflite", name, *specs[name], f"exit{name[-1]}")
                       for name in (f"r{side}x{side}s0", f"r{side}x{side}s1"))
        ladders.append(Ladder(f"litert-{side}", "litert", "tflite", "fp32", (side, side), stages, None,
                              (_vector(side, blobs),)))
    for side in SIDES:
        image, squares = (TensorSpec(name, "float32", (1, 1, side, side)) for name in ("image", "squares"))
        exits = [TensorSpec(f"exit{number}", "float32", (1, 3)) for number in (0, 1)]
        onnx = (Stage("models/ort-stage0.onnx", "", (image,), (exits[0], squares), "exit0"),
                Stage("models/ort-stage1.onnx", "", (image, squares), (exits[1],), "exit1"))
        ladders.append(Ladder(f"ort-{side}", "ort", "onnx", "fp32", (side, side), onnx, SHARED,
                              (_vector(side, blobs),)))
    return tuple(ladders), blobs


def _vector(side: int, blobs: dict[str, bytes]) -> TestVector:
    image = (np.arange(side * side, dtype=np.float32).reshape(side, side) / (side * side))
    refs = []
    for name, array in zip(("image", "exit0", "exit1"), (image[None, None], *(each[None] for each in answers(image))),
                           strict=True):
        blobs[f"vectors/{side}/{name}.bin"] = np.ascontiguousarray(array, np.float32).tobytes()
        refs.append(BlobRef(name, f"vectors/{side}/{name}.bin", "float32", array.shape))
    return TestVector((refs[0],), tuple(refs[1:]), 1e-4)


def _plan(manifest: Manifest, engine: Any) -> Plan:
    """Three routes: the first exit alone; both exits at 2 x 2; the small one, then the whole network at 4 x 4."""
    promise = Promise(0.9, (0.8, 0.95), 1.0, 2.0, (0.75, 0.25), 100)
    gate = Gate((2.0, 1.0, -1.0, -0.5, 0.25), -1.0)
    routes = (
        Route((Step(0, 0, (1.0,), "margin", None),), Promise(0.7, (0.6, 0.8), 0.5, 0.5, (1.0,), 100)),
        Route((Step(0, 0, (1.0,), "margin", 0.5), Step(0, 1, (0.5, 1.0), "margin", None)), promise),
        Route((Step(0, 0, (1.0,), "gate", 0.6, gate), Step(1, 1, (0.25, 1.5), "max_probability", None)),
              Promise(0.95, (0.9, 0.99), 2.0, 4.0, (0.5, 0.5), 100)),
    )
    return Plan("conformance", engine, "measured", ((0.5, 0.5), (1.5, 1.5)), 0.25, routes, 1, "conformance", (),
                ladders_sha256(manifest, engine))


def _expected(plan: Plan) -> list[dict[str, Any]]:
    """Images and what the default route must answer, worked out with numpy."""
    from edgekit.runtime.decide import combine, confidence

    found = []
    for pixels in ([[255, 255], [255, 204]], [[0, 0], [51, 0]], [[102, 153], [102, 153]], [[204, 51], [102, 153]]):
        logits = answers(np.array(pixels, np.float32) / np.float32(255))
        first, second = plan.routes[1].steps
        sure = confidence(combine(logits[:1], first.weights), first, None)
        stops = first.threshold is not None and sure >= first.threshold
        combined = combine(logits[:1], first.weights) if stops else combine(logits, second.weights)
        found.append({"image": pixels, "exits": [each.tolist() for each in logits], "confidence": sure,
                      "exit": 0 if stops else 1, "reason": "confident" if stops else "last",
                      "logits": combined.tolist(), "label": LABELS[int(combined.argmax())]})
    return found


def main() -> None:
    """Write the three files; the same versions of the tools give the same bytes."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.from_private_bytes(TEST_SEED)
    ladders, blobs = _ladders()
    blobs["labels.txt"] = "".join(f"{label}\n" for label in LABELS).encode()
    manifest = Manifest(
        schema_version=2, name="golden-adaptive", task="classification", entries=(), variants=(), test_vectors=(),
        provenance=Provenance("golden_adaptive.onnx", "0" * 64, {"purpose": "conformance"}, {"edgekit": "0.1.0"}),
        preprocess=Preprocess(colour="gray", resize="stretch", mean=(0.0,), std=(255.0,)), labels_entry="labels.txt",
        ladders=ladders)
    path = FOLDER / "golden_adaptive.edge"
    manifest = write_bundle(path, manifest, blobs)
    plan = _plan(manifest, "litert")
    manifest = write_bundle(path, replace(manifest, plan_entry="plan.json"), blobs | {"plan.json": encode_plan(plan)},
                            key)
    write_plan(FOLDER / "golden_adaptive_ort.edgeplan", _plan(manifest, "ort"), manifest, key)
    with Bundle.open(path, public_key=FOLDER / "test_key.pub") as bundle:
        bundle.verify_all()
    expected = {"ladders": [ladder.id for ladder in ladders], "default": 1, "images": _expected(plan),
                "ladders_sha256": {engine: ladders_sha256(manifest, engine) for engine in ("litert", "ort")}}
    (FOLDER / "golden_adaptive.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
