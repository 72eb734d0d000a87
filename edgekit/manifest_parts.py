"""From a build's results to the manifest and the entries of its bundle."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from edgekit.artifacts import Array, Conversion, Engine, LiteRTModel, OnnxModel, TensorSpec
from edgekit.bundle import SCHEMA_VERSION, BlobRef, Manifest, Provenance, TestVector, Variant
from edgekit.errors import BadRecipe
from edgekit.parity import Sample
from edgekit.recipe import BuildRecipe

__all__ = ["Blobs", "add_blob", "check_recipe", "make_manifest", "tool_versions"]

_LABELS = "labels.txt"
#: what can change the bytes of a bundle
_TOOLS = ("edgekit-sdk", "onnx", "onnx-ir", "onnxruntime", "ai-edge-litert", "numpy")

Blobs = dict[str, bytes]


def check_recipe(model: OnnxModel, recipe: BuildRecipe) -> None:
    """Raise BadRecipe for labels or preprocessing that cannot fit ``model``."""
    if recipe.labels:
        output = model.outputs[0]
        classes = output.shape[-1] if output.shape else 1
        if classes not in (-1, len(recipe.labels)):
            raise BadRecipe(
                f"{len(recipe.labels)} labels were given and the output '{output.name}' has {classes} values.",
                "Give one label for each value, in their order.",
            )
        if any("\n" in label or not label for label in recipe.labels):
            raise BadRecipe("A label is empty or has a line break.", "Labels are stored one a line.")
    if recipe.preprocess is not None and not _takes_an_image(model, recipe):
        shown = ", ".join(f"'{spec.name}' {spec.dtype} {list(spec.shape)}" for spec in model.inputs)
        raise BadRecipe(
            f"Preprocessing for {recipe.preprocess.colour} images was given and the network takes {shown}.",
            "It fits a single float input of shape 1, C, H, W with as many channels as there are colours (or a uint8 "
            "one, with mean 0 and deviation 1).",
        )


def _takes_an_image(model: OnnxModel, recipe: BuildRecipe) -> bool:
    if len(model.inputs) != 1 or recipe.preprocess is None:
        return False
    (spec,) = model.inputs
    channels = len(recipe.preprocess.mean)
    plain = set(recipe.preprocess.mean) == {0.0} and set(recipe.preprocess.std) == {1.0}
    shape = recipe.convert.shapes.get(spec.name, spec.shape)
    fits = len(shape) == 4 and shape[0] in (-1, 1) and shape[1] in (-1, channels)
    return fits and (spec.dtype in ("float32", "float16") or (spec.dtype == "uint8" and plain))


def make_manifest(
    source_name: str,
    model: OnnxModel,
    recipe: BuildRecipe,
    conversions: Mapping[Engine, Conversion],
    vectors: Sequence[Sample],
) -> tuple[Manifest, Blobs]:
    """The manifest (without its list of entries, which the writer makes) and the content of each entry by name."""
    blobs: Blobs = {}
    variants = tuple(_variant(engine, conversion, conversions, model, recipe, blobs)
                     for engine, conversion in conversions.items())
    tests = tuple(_vector(number, vector, recipe, blobs) for number, vector in enumerate(vectors))
    if recipe.labels:
        blobs[_LABELS] = "".join(f"{label}\n" for label in recipe.labels).encode()
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name=recipe.name,
        task="classification" if recipe.labels else "arrays",
        entries=(),
        variants=variants,
        test_vectors=tests,
        provenance=Provenance(
            source_name=source_name,
            source_sha256=hashlib.sha256(model.data).hexdigest(),
            recipe=_as_read_back(recipe),
            tools=tool_versions(),
        ),
        preprocess=recipe.preprocess,
        labels_entry=_LABELS if recipe.labels else None,
    )
    return manifest, blobs


def _as_read_back(recipe: BuildRecipe) -> dict[str, object]:
    """``recipe`` in the types of JSON, so that the manifest equals the decoded one; labels have an entry already."""
    plain = msgspec.json.encode(msgspec.structs.replace(recipe, labels=()))
    return msgspec.json.decode(plain, type=dict[str, object])


def _variant(
    engine: Engine,
    conversion: Conversion,
    conversions: Mapping[Engine, Conversion],
    model: OnnxModel,
    recipe: BuildRecipe,
    blobs: Blobs,
) -> Variant:
    made = conversion.model
    precision = _precision(model)
    file_format = "tflite" if isinstance(made, LiteRTModel) else made.format
    entry = f"models/{engine}-{precision}.{file_format}"
    blobs[entry] = made.data
    return Variant(
        id=f"{engine}-{precision}",
        engine=engine,
        format=file_format,
        precision=precision,
        entry=entry,
        inputs=made.inputs,
        outputs=made.outputs,
        resolution=_resolution(made.inputs, _is_image(conversions, recipe)),
    )


def _is_image(conversions: Mapping[Engine, Conversion], recipe: BuildRecipe) -> bool:
    """Whether the first input is one: the recipe says so, or the LiteRT converter found that channels lie on axis 1."""
    litert = conversions.get("litert")
    return recipe.preprocess is not None or (litert is not None and litert.model.inputs[0].layout == "nhwc")


def _resolution(inputs: Sequence[TensorSpec], is_image: bool) -> tuple[int, int] | None:
    if not is_image or not inputs or len(inputs[0].shape) != 4:
        return None
    height, width = inputs[0].shape[1:3] if inputs[0].layout == "nhwc" else inputs[0].shape[2:4]
    return (height, width) if height > 0 and width > 0 else None


def _precision(model: OnnxModel) -> str:
    """What most of the weights are: "fp32", "fp16", "bf16", "fp64" or "int8"; "fp32" for a network without weights."""
    from onnx import TensorProto

    from edgekit.converters.onnx_model import parse_onnx

    names = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16",
             TensorProto.DOUBLE: "fp64", TensorProto.INT8: "int8", TensorProto.UINT8: "int8"}
    counts: dict[str, int] = {}
    for tensor in parse_onnx(model.data).graph.initializer:
        if tensor.data_type in names:
            name = names[tensor.data_type]
            counts[name] = counts.get(name, 0) + int(np.prod(tensor.dims, dtype=np.int64))
    return max(counts, key=lambda name: counts[name], default="fp32")


def _vector(number: int, vector: Sample, recipe: BuildRecipe, blobs: Blobs) -> TestVector:
    inputs, outputs = vector
    return TestVector(
        inputs=tuple(add_blob(f"test/{number}/in{at}.bin", *item, blobs) for at, item in enumerate(inputs.items())),
        outputs=tuple(add_blob(f"test/{number}/out{at}.bin", *item, blobs) for at, item in enumerate(outputs.items())),
        tolerance=recipe.convert.tolerance,
    )


def add_blob(entry: str, name: str, array: Array, blobs: Blobs) -> BlobRef:
    """Put ``array``, called ``name``, into ``blobs`` as ``entry``."""
    blobs[entry] = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    return BlobRef(name=name, entry=entry, dtype=array.dtype.name, shape=tuple(array.shape))


def tool_versions() -> dict[str, str]:
    """The versions of what can change the bytes of a bundle."""
    versions = {}
    for package in _TOOLS:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions
