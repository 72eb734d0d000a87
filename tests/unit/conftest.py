"""Fixtures about bundles and .tflite files."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest

from edgekit.artifacts import TensorSpec
from edgekit.bundle import BlobRef, Manifest, Provenance, TestVector, Variant

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

CONFORMANCE = Path(__file__).resolve().parents[2] / "runtimes" / "conformance"


class Sample(NamedTuple):
    """What ``write_bundle`` takes, without a key."""

    manifest: Manifest
    blobs: dict[str, bytes]


@pytest.fixture
def sample() -> Sample:
    """A small, consistent bundle. Its model entry is no model: nothing here parses it."""
    inputs = (TensorSpec("x", "float32", (1, 3)),)
    outputs = (TensorSpec("y", "float32", (1, 2)),)
    vector = TestVector((BlobRef("x", "vectors/0/x.bin", "float32", (1, 3)),),
                        (BlobRef("y", "vectors/0/y.bin", "float32", (1, 2)),), 1e-4)
    manifest = Manifest(
        schema_version=1, name="sample", task="arrays", entries=(),
        variants=(Variant("litert-fp32", "litert", "tflite", "fp32", "models/a.tflite", inputs, outputs),),
        test_vectors=(vector,),
        provenance=Provenance("a.onnx", "0" * 64, {"zeta": 1, "alpha": [1, 2]}, {"onnx": "1", "edgekit": "2"}),
    )
    blobs = {"vectors/0/y.bin": bytes(8), "models/a.tflite": b"weights" * 1000, "vectors/0/x.bin": bytes(12)}
    return Sample(manifest, blobs)


@pytest.fixture(scope="session")
def conformance() -> Path:
    """The folder runtimes/conformance."""
    return CONFORMANCE


@pytest.fixture(scope="session")
def hostile() -> Iterator[ModuleType]:
    """runtimes/conformance/hostile.py, a script that stands beside its helper."""
    sys.path.insert(0, str(CONFORMANCE))
    try:
        yield importlib.import_module("hostile")
    finally:
        sys.path.remove(str(CONFORMANCE))


@pytest.fixture(scope="session")
def test_key(hostile: ModuleType) -> Ed25519PrivateKey:
    """The private key of the golden bundle."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(hostile.TEST_SEED)


class TFLiteMaker:
    """Builds .tflite files of any content, sound or not, with the schema module of ai-edge-litert."""

    def __init__(self) -> None:
        self.schema: Any = pytest.importorskip("ai_edge_litert.schema_py_generated")

    def table(self, kind: str, **fields: object) -> Any:
        """An object of the schema (``kind`` without its T), with ``fields`` set."""
        made = getattr(self.schema, f"{kind}T")()
        for name, value in fields.items():
            assert hasattr(made, name), f"{kind} has no {name}"
            setattr(made, name, value)
        return made

    def tensor(self, name: str, shape: list[int], buffer: int = 0, kind: str = "FLOAT32", **fields: object) -> Any:
        return self.table("Tensor", name=name, shape=shape, buffer=buffer,
                          type=getattr(self.schema.TensorType, kind), **fields)

    def operator(self, index: int, inputs: list[int], outputs: list[int], options: str = "", **fields: object) -> Any:
        """``options``: the name of its options table, whose values are ``fields``."""
        made = self.table("Operator", opcodeIndex=index, inputs=inputs, outputs=outputs)
        if options:
            made.builtinOptionsType = getattr(self.schema.BuiltinOptions, options)
            made.builtinOptions = self.table(options, **fields)
        return made

    def pack(self, codes: list[Any], buffers: list[Any], subgraphs: list[Any], **fields: object) -> bytes:
        """The file. ``codes``: names of builtin ops, or OperatorCode objects; ``buffers``: bytes, or Buffer objects."""
        import flatbuffers

        enum = self.schema.BuiltinOperator
        made = [self.table("OperatorCode", builtinCode=getattr(enum, code), version=1,
                           deprecatedBuiltinCode=min(getattr(enum, code), 127)) if isinstance(code, str) else code
                for code in codes]
        contents = [self.table("Buffer", data=np.frombuffer(content, np.uint8) if content else None)
                    if isinstance(content, bytes) else content for content in buffers]
        defaults = {"version": 3, "operatorCodes": made, "subgraphs": subgraphs, "buffers": contents}
        model = self.table("Model", **(defaults | fields))
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


@pytest.fixture(scope="session")
def tflite() -> TFLiteMaker:
    """A maker of .tflite files; skips where the schema module is absent."""
    return TFLiteMaker()


@pytest.fixture(scope="session")
def crashing_tflite(tflite: TFLiteMaker) -> bytes:
    """A sound flatbuffer that kills LiteRT 2.3 while it is loaded: a SPLIT into no parts."""
    tensors = [tflite.tensor("axis", [1], 1, "INT32"), tflite.tensor("x", [1, 4]), tflite.tensor("y", [1, 4])]
    split = tflite.operator(0, [0, 1], [2], "SplitOptions", numSplits=0)
    graph = tflite.table("SubGraph", tensors=tensors, inputs=[1], outputs=[2], operators=[split], name="main")
    return tflite.pack(["SPLIT"], [b"", bytes(4)], [graph])


@pytest.fixture(scope="session")
def rich_tflite(tflite: TFLiteMaker) -> bytes:
    """A flatbuffer with every kind of field: unions, strings, vectors of scalars of each width, nested tables."""
    index = tflite.table("Uint16Vector", values=np.array([0, 1, 2], np.uint16))
    starts = tflite.table("Uint16Vector", values=np.array([0, 1, 2, 2, 3], np.uint16))
    dims = [tflite.table("DimensionMetadata", format=0, denseSize=4),
            tflite.table("DimensionMetadata", format=1, arraySegmentsType=2, arraySegments=starts,
                         arrayIndicesType=2, arrayIndices=index)]
    sparsity = tflite.table("SparsityParameters", traversalOrder=[0, 1], dimMetadata=dims)
    scale = tflite.table("QuantizationParameters", scale=np.array([0.5, 0.25], np.float32), quantizedDimension=0,
                         zeroPoint=np.array([1, -1], np.int64))
    tensors = [
        tflite.tensor("x", [1, 4], shapeSignature=[-1, 4]),
        tflite.tensor("weight", [2, 4], 1, "INT8", quantization=scale),
        tflite.tensor("sparse", [4, 4], 2, sparsity=sparsity), tflite.tensor("hidden", [1, 2]),
        tflite.tensor("text", [1], 0, "STRING"), tflite.tensor("y", [2]), tflite.tensor("four", [3], 3, "INT4"),
    ]
    custom = tflite.operator(2, [5], [4])
    custom.customOptions = np.frombuffer(b"\1\2\3", np.uint8)
    composite = tflite.operator(3, [3, -1], [5])
    composite.builtinOptions2Type = tflite.schema.BuiltinOptions2.StableHLOCompositeOptions
    composite.builtinOptions2 = tflite.table(
        "StableHLOCompositeOptions", name="my.composite", decompositionSubgraphIndex=1,
        compositeAttributes=np.frombuffer(b"abc", np.uint8))
    operators = [
        tflite.operator(0, [0, 1, -1], [3], "FullyConnectedOptions", fusedActivationFunction=1, keepNumDims=True),
        tflite.operator(1, [3], [5], "ReshapeOptions", newShape=[2]), custom, composite,
    ]
    main = tflite.table("SubGraph", tensors=tensors, inputs=[0], outputs=[5], operators=operators, name="main")
    body = tflite.table("SubGraph", tensors=tensors[:1], inputs=[0], outputs=[0], operators=[], name="body")
    signature = tflite.table("SignatureDef", signatureKey="serving_default", subgraphIndex=0,
                             inputs=[tflite.table("TensorMap", name="image", tensorIndex=0)],
                             outputs=[tflite.table("TensorMap", name="scores", tensorIndex=5)])
    code = tflite.table("OperatorCode", builtinCode=32, deprecatedBuiltinCode=32, customCode="MyOp", version=1)
    return tflite.pack(
        ["FULLY_CONNECTED", "RESHAPE", code, "STABLEHLO_COMPOSITE"], [b"", bytes(range(8)), bytes(24), bytes(2)],
        [main, body], description="rich", signatureDefs=[signature], metadataBuffer=[3],
        metadata=[tflite.table("Metadata", name="note", buffer=3)])
