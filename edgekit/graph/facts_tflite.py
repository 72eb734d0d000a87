"""The facts of a .tflite file, without an engine."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import msgspec

from edgekit.artifacts import LAYOUT_METADATA, TensorSpec
from edgekit.errors import BadModel
from edgekit.graph.model_facts import ModelFacts, SignatureFacts
from edgekit.graph.tflite_check import check_tflite
from edgekit.graph.tflite_reader import Exhausted, Table, root
from edgekit.graph.tflite_schema import load_schema

__all__ = ["describe_tflite"]


def describe_tflite(data: bytes, name: str) -> ModelFacts:
    """Check ``data`` and describe it. Raises BadModel, naming ``name``, when it is not a sound .tflite file."""
    check_tflite(data, name)
    try:
        return _describe(root(data), len(data))
    except Exhausted as error:
        raise BadModel(f"{name} is damaged: {error}.", "Obtain the file anew, or convert the model again.") from None


def _describe(model: Table, size_bytes: int) -> ModelFacts:
    subgraphs = [list(subgraph.tables("Tensors")) for subgraph in model.tables("Subgraphs")]
    main = next(model.tables("Subgraphs"))
    stored = _stored_as_nhwc(model)
    signatures = tuple(_signature(signature, subgraphs, stored) for signature in model.tables("SignatureDefs"))
    parameter_count, weight_bytes = _weights(model, subgraphs)
    return ModelFacts(
        format="tflite",
        size_bytes=size_bytes,
        # A signature's names are the ones that callers use; without one, the tensors' own names have to do.
        inputs=signatures[0].inputs if signatures else _by_index(main, "Inputs", subgraphs[0]),
        outputs=signatures[0].outputs if signatures else _by_index(main, "Outputs", subgraphs[0]),
        op_counts=_op_counts(model),
        opsets={"tflite": model.number("Version")},
        parameter_count=parameter_count,
        weight_bytes=weight_bytes,
        signatures=signatures,
    )


def _stored_as_nhwc(model: Table) -> dict[str, list[str]]:
    """By signature, the inputs and outputs that our converter stored as N, H, W, C; {} in files of other tools."""
    for entry in model.tables("Metadata"):
        if entry.text("Name") == LAYOUT_METADATA:
            try:
                buffer = list(model.tables("Buffers"))[entry.number("Buffer")]
                return msgspec.json.decode(bytes(buffer.numbers("Data") or ()), type=dict[str, list[str]])
            except (IndexError, ValueError, msgspec.DecodeError) as error:
                raise BadModel(f"Its metadata entry '{LAYOUT_METADATA}' is damaged: {error}.") from error
    return {}


def _signature(signature: Table, subgraphs: list[list[Table]], stored: dict[str, list[str]]) -> SignatureFacts:
    key, tensors = signature.text("SignatureKey"), subgraphs[signature.number("SubgraphIndex")]
    nhwc = stored.get(key, [])
    inputs, outputs = (
        tuple(_spec(tensors[item.number("TensorIndex")], item.text("Name"), nhwc) for item in signature.tables(field))
        for field in ("Inputs", "Outputs"))
    return SignatureFacts(key, inputs, outputs)


def _by_index(subgraph: Table, field: str, tensors: list[Table]) -> tuple[TensorSpec, ...]:
    indices = subgraph.numbers(field) or ()
    return tuple(_spec(tensors[index], tensors[index].text("Name")) for index in indices if index >= 0)


def _spec(tensor: Table, name: str, nhwc: Sequence[str] = ()) -> TensorSpec:
    shape = tensor.numbers("ShapeSignature") or tensor.numbers("Shape") or ()
    dtype = load_schema().enums["TensorType"][tensor.number("Type")].lower()
    return TensorSpec(name, dtype, shape, "nhwc" if name in nhwc else "onnx")


def _op_counts(model: Table) -> dict[str, int]:
    names = [_op_name(code) for code in model.tables("OperatorCodes")]
    counts = Counter(names[operator.number("OpcodeIndex")]
                     for subgraph in model.tables("Subgraphs") for operator in subgraph.tables("Operators"))
    return dict(sorted(counts.items()))


def _op_name(code: Table) -> str:
    # Files from before 2020 leave the wide field at 0; newer ones set both.
    number = max(code.number("BuiltinCode"), code.number("DeprecatedBuiltinCode"))
    name = load_schema().enums["BuiltinOperator"].get(number, f"BUILTIN_{number}")
    return f"CUSTOM:{code.text('CustomCode')}" if name == "CUSTOM" else name


def _weights(model: Table, subgraphs: list[list[Table]]) -> tuple[int, int]:
    """Elements and bytes of the constants; signatures may share a buffer, which counts once."""
    sizes = [buffer.number("Size") if buffer.number("Offset") > 1 else buffer.length("Data")
             for buffer in model.tables("Buffers")]
    used: dict[int, int] = {}
    for tensors in subgraphs:
        for tensor in tensors:
            index = tensor.number("Buffer")
            if sizes[index]:
                used[index] = math.prod(tensor.numbers("Shape") or ())
    return sum(used.values()), sum(sizes[index] for index in used)
