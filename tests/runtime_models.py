"""Small networks for the tests of the runtime, as .tflite and ONNX bytes, and bundles that hold them.

The one that most tests use names the colour of an image: the means of its three channels are the scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgekit.artifacts import Array, TensorSpec
from edgekit.bundle import BlobRef, Manifest, Provenance, TestVector, Variant, write_bundle
from edgekit.recipe import Preprocess

COLOURS = ("red", "green", "blue")
PLAIN = Preprocess(resize="stretch", mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0))
_TYPES = {
    "float32": schema.TensorType.FLOAT32, "float16": schema.TensorType.FLOAT16, "int8": schema.TensorType.INT8,
    "uint8": schema.TensorType.UINT8, "int32": schema.TensorType.INT32, "bool": schema.TensorType.BOOL,
    "float64": schema.TensorType.FLOAT64, "complex64": schema.TensorType.COMPLEX64,
}
_OPS = schema.BuiltinOperator
_OPTIONS = schema.BuiltinOptions


class LiteGraph:
    """Builds a .tflite file of one subgraph; tensors are numbered as they are added."""

    def __init__(self) -> None:
        self._model = schema.ModelT()
        self._model.version = 3
        self._model.buffers = [schema.BufferT()]
        self._model.operatorCodes = []
        self._graph = schema.SubGraphT()
        self._graph.tensors, self._graph.operators = [], []
        self._model.subgraphs = [self._graph]
        self._model.signatureDefs = []

    def tensor(self, name: str, shape: Sequence[int], dtype: str = "float32", *, data: Array | None = None,
               variable: bool = False) -> int:
        """A tensor; with ``data`` a constant. A dimension of -1 is dynamic, with 1 as its first size."""
        tensor = schema.TensorT()
        tensor.name, tensor.type, tensor.isVariable = name, _TYPES[dtype], variable
        tensor.shape = [max(dim, 1) for dim in shape]
        if -1 in shape:
            tensor.shapeSignature = list(shape)
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            self._model.buffers.append(buffer)
            tensor.buffer = len(self._model.buffers) - 1
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def op(self, name: str, inputs: Sequence[int], outputs: Sequence[int], options: Any = None) -> None:
        """An op of the builtin set, with the options object of its kind."""
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(_OPS, name)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = 1
        self._model.operatorCodes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self._model.operatorCodes) - 1
        operator.inputs, operator.outputs = list(inputs), list(outputs)
        if options is not None:
            operator.builtinOptions = options
            operator.builtinOptionsType = getattr(_OPTIONS, type(options).__name__.removesuffix("T"))
        self._graph.operators.append(operator)

    def signature(self, inputs: Mapping[str, int], outputs: Mapping[str, int], key: str = "serving_default") -> None:
        """A signature over these tensors."""
        definition = schema.SignatureDefT()
        definition.signatureKey, definition.subgraphIndex = key, 0
        definition.inputs = [_entry(*pair) for pair in inputs.items()]
        definition.outputs = [_entry(*pair) for pair in outputs.items()]
        self._model.signatureDefs.append(definition)

    def pack(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        """The file."""
        self._graph.inputs, self._graph.outputs = list(inputs), list(outputs)
        builder = flatbuffers.Builder(1024)
        builder.Finish(self._model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def _entry(name: str, tensor: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, tensor
    return entry


def colour_tflite(height: int = -1, width: int = -1, batch: int = -1) -> bytes:
    """image (N, H, W, 3) -> scores (N, 3)."""
    graph = LiteGraph()
    image = graph.tensor("image:0", (batch, height, width, 3))
    axes = graph.tensor("axes", (2,), "int32", data=np.array([1, 2], np.int32))
    scores = graph.tensor("scores:0", (batch, 3))
    options = schema.ReducerOptionsT()
    options.keepDims = False
    graph.op("MEAN", (image, axes), (scores,), options)
    graph.signature({"image": image}, {"scores": scores})
    return graph.pack((image,), (scores,))


def colour_onnx(height: int | str = "H", width: int | str = "W", batch: int | str = "N") -> bytes:
    """image (N, 3, H, W) -> scores (N, 3)."""
    from onnx import TensorProto, helper

    nodes = [helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
             helper.make_node("Flatten", ["pooled"], ["scores"])]
    graph = helper.make_graph(
        nodes, "colour", [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, height, width])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 3])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def conv_tflite(side: int = 8, channels: int = 16) -> bytes:
    """A convolution with weights, for what depends on them: image (1, side, side, 3) -> features."""
    rng = np.random.default_rng(3)
    graph = LiteGraph()
    image = graph.tensor("image", (1, side, side, 3))
    weights = graph.tensor("w", (channels, 3, 3, 3), data=rng.normal(size=(channels, 3, 3, 3)).astype(np.float32))
    bias = graph.tensor("b", (channels,), data=rng.normal(size=channels).astype(np.float32))
    features = graph.tensor("features", (1, side, side, channels))
    options = schema.Conv2DOptionsT()
    options.padding, options.strideH, options.strideW = schema.Padding.SAME, 1, 1
    options.dilationHFactor = options.dilationWFactor = 1
    graph.op("CONV_2D", (image, weights, bias), (features,), options)
    graph.signature({"image": image}, {"features": features})
    return graph.pack((image,), (features,))


def rnn_tflite() -> bytes:
    """A recurrent op whose state is a variable tensor: x (1, 1, 2) -> y (1, 1, 2) = tanh(x + state)."""
    graph = LiteGraph()
    x = graph.tensor("x", (1, 1, 2))
    eye = np.eye(2, dtype=np.float32)
    weights = [graph.tensor(name, (2, 2), data=eye) for name in ("w", "r")]
    bias = graph.tensor("b", (2,), data=np.zeros(2, np.float32))
    state = graph.tensor("state", (1, 2), variable=True)
    y = graph.tensor("y", (1, 1, 2))
    options = schema.SequenceRNNOptionsT()
    options.fusedActivationFunction = schema.ActivationFunctionType.TANH
    graph.op("UNIDIRECTIONAL_SEQUENCE_RNN", (x, *weights, bias, state), (y,), options)
    return graph.pack((x,), (y,))


def pair_tflite(names: tuple[str, str] = ("zebra", "ant"), dtype: str = "float32") -> bytes:
    """Two inputs, whose names are not in alphabetical order: sum = first + second, of shape (1, 4)."""
    graph = LiteGraph()
    first, second = (graph.tensor(name, (1, 4), dtype) for name in names)
    total = graph.tensor("total", (1, 4), dtype)
    graph.op("ADD", (first, second), (total,), schema.AddOptionsT())
    graph.signature({names[0]: first, names[1]: second}, {"sum": total})
    return graph.pack((first, second), (total,))


def litert_variant(resolution: tuple[int, int] | None = None, entry: str = "models/a.tflite", **shape: int) -> Variant:
    """The description of ``colour_tflite``, which stores its image as NHWC."""
    height, width = resolution or (-1, -1)
    batch = shape.get("batch", -1)
    return Variant(f"litert-{height}", "litert", "tflite", "fp32", entry,
                   (TensorSpec("image", "float32", (batch, height, width, 3), "nhwc"),),
                   (TensorSpec("scores", "float32", (batch, 3)),), resolution)


def ort_variant(entry: str = "models/a.onnx") -> Variant:
    """The description of ``colour_onnx``."""
    return Variant("ort-any", "ort", "onnx", "fp32", entry, (TensorSpec("image", "float32", (-1, 3, -1, -1)),),
                   (TensorSpec("scores", "float32", (-1, 3)),))


def colour_manifest(variants: Sequence[Variant], **changes: Any) -> Manifest:
    """A manifest for colour networks, with labels, preprocessing and one 4 x 6 test vector."""
    vector = TestVector((BlobRef("image", "t/image", "float32", (1, 3, 4, 6)),),
                        (BlobRef("scores", "t/scores", "float32", (1, 3)),), 1e-4)
    fields: dict[str, Any] = {
        "schema_version": 1, "name": "colour", "task": "classification", "entries": (), "variants": tuple(variants),
        "test_vectors": (vector,), "provenance": Provenance("colour.onnx", "0" * 64, {}, {}), "preprocess": PLAIN,
        "labels_entry": "labels.txt",
    }
    return Manifest(**{**fields, **changes})


def colour_blobs(**more: bytes) -> dict[str, bytes]:
    """The entries that ``colour_manifest`` names, except models."""
    image = np.zeros((1, 3, 4, 6), np.float32)
    return {"t/image": image.tobytes(), "t/scores": np.zeros((1, 3), np.float32).tobytes(),
            "labels.txt": "\n".join(COLOURS).encode(), **more}


def write_colours(path: Path, variants: Sequence[Variant] | None = None, models: Mapping[str, bytes] | None = None,
                  **changes: Any) -> Path:
    """A bundle of the colour network for both engines, any size, or with the given parts instead."""
    if variants is None:
        variants = (litert_variant(), ort_variant())
    models = models or {"models/a.tflite": colour_tflite(), "models/a.onnx": colour_onnx()}
    used = {variant.entry for variant in variants}
    manifest = colour_manifest(variants, **changes)
    blobs = {**colour_blobs(), **{name: data for name, data in models.items() if name in used}}
    if manifest.labels_entry is None:
        del blobs["labels.txt"]
    if not manifest.test_vectors:
        del blobs["t/image"], blobs["t/scores"]
    write_bundle(path, manifest, blobs)
    return path


def write_arrays(path: Path, model: bytes, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec],
                 engine: str = "litert") -> Path:
    """A bundle of one model that takes and returns plain arrays."""
    variant = Variant("v", "litert", "tflite", "fp32", "models/a", tuple(inputs), tuple(outputs))
    if engine == "ort":
        variant = Variant("v", "ort", "onnx", "fp32", "models/a", tuple(inputs), tuple(outputs))
    return write_colours(path, (variant,), {"models/a": model}, task="arrays", preprocess=None, labels_entry=None,
                         test_vectors=())
