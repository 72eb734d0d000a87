"""Make golden.edge, test_key.pub and golden.json: ``python make_golden.py``. Needs edgekit-sdk[convert].

The network is ``scores = relu(image @ weight)``, small enough to work out by hand, as LiteRT and as ONNX.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from hostile import TEST_SEED

from edgekit.artifacts import TensorSpec
from edgekit.bundle import BlobRef, Bundle, Manifest, Provenance, TestVector, Variant, write_bundle

FOLDER = Path(__file__).resolve().parent
WEIGHT = np.array([[1, -1, 0.5], [2, 0, -0.5], [0, 3, 1], [-1, 1, 0.25]], np.float32)
INPUT = np.array([[1, 2, 3, 4]], np.float32)


def _onnx_model() -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["hidden"]), helper.make_node("Relu", ["hidden"], ["scores"])],
        "golden",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(WEIGHT, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _tflite_model() -> bytes:
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    def tensor(name: str, shape: list[int], buffer: int) -> Any:
        made = schema.TensorT()
        made.name, made.shape, made.buffer, made.type = name, shape, buffer, schema.TensorType.FLOAT32
        return made

    graph = schema.SubGraphT()
    graph.tensors = [tensor("x", [1, 4], 0), tensor("weight", [3, 4], 1), tensor("scores", [1, 3], 0)]
    graph.inputs, graph.outputs, graph.name = [0], [2], "main"
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0, 1, -1], [2]
    operator.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    operator.builtinOptions = schema.FullyConnectedOptionsT()
    operator.builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.RELU
    graph.operators = [operator]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = 1
    weight = schema.BufferT()
    weight.data = np.frombuffer(np.ascontiguousarray(WEIGHT.T).tobytes(), np.uint8)
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    signature.inputs, signature.outputs = [_mapped(schema, "x", 0)], [_mapped(schema, "scores", 2)]
    model = schema.ModelT()
    model.version, model.subgraphs, model.operatorCodes = 3, [graph], [code]
    model.buffers, model.signatureDefs, model.description = [schema.BufferT(), weight], [signature], "golden"
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _mapped(schema: Any, name: str, index: int) -> Any:
    made = schema.TensorMapT()
    made.name, made.tensorIndex = name, index
    return made


def _manifest() -> Manifest:
    inputs = (TensorSpec("x", "float32", (1, 4)),)
    outputs = (TensorSpec("scores", "float32", (1, 3)),)
    return Manifest(
        schema_version=1,
        name="golden",
        task="classification",
        entries=(),
        variants=(Variant("litert-fp32", "litert", "tflite", "fp32", "models/litert-fp32.tflite", inputs, outputs),
                  Variant("ort-fp32", "ort", "onnx", "fp32", "models/ort-fp32.onnx", inputs, outputs)),
        test_vectors=(TestVector((BlobRef("x", "vectors/0/x.bin", "float32", (1, 4)),),
                                 (BlobRef("scores", "vectors/0/scores.bin", "float32", (1, 3)),), 1e-4),),
        provenance=Provenance("golden.onnx", "0" * 64, {"purpose": "conformance"}, {"edgekit": "0.1.0"}),
        labels_entry="labels.txt",
    )


def main() -> None:
    """Write the three files; the same versions of the tools give the same bytes."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.from_private_bytes(TEST_SEED)
    blobs = {
        "labels.txt": b"first\nsecond\nthird\n",
        "models/litert-fp32.tflite": _tflite_model(),
        "models/ort-fp32.onnx": _onnx_model(),
        "vectors/0/x.bin": INPUT.tobytes(),
        "vectors/0/scores.bin": np.maximum(INPUT @ WEIGHT, 0).tobytes(),
    }
    write_bundle(FOLDER / "golden.edge", _manifest(), blobs, key)
    (FOLDER / "test_key.pub").write_bytes(key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    with Bundle.open(FOLDER / "golden.edge", public_key=FOLDER / "test_key.pub") as bundle:
        bundle.verify_all()
        expected = {"name": "golden", "signed": True, "labels": ["first", "second", "third"],
                    "variants": [variant.id for variant in bundle.manifest.variants],
                    "entries": {entry.name: entry.sha256 for entry in bundle.manifest.entries},
                    "offsets": {entry.name: bundle.span(entry.name)[0] for entry in bundle.manifest.entries},
                    "inputs": {"x": INPUT.tolist()}, "outputs": {"scores": np.maximum(INPUT @ WEIGHT, 0).tolist()}}
    (FOLDER / "golden.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
