"""What must hold of the ladders of a manifest: how their stages hang together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgekit.artifacts import TensorSpec
from edgekit.bundle.adaptive import Ladder, Stage
from edgekit.bundle.check_parts import (
    check_format,
    check_reference,
    check_resolution,
    check_specs,
    check_text,
    check_vector,
    refuse_twice,
)
from edgekit.errors import BadBundle

__all__ = ["MAX_LADDERS", "MAX_STAGES", "check_ladders"]

MAX_LADDERS = 256
MAX_STAGES = 64


def check_ladders(ladders: Sequence[Ladder], sizes: Mapping[str, int]) -> None:
    """Raise BadBundle, naming the ladder, for whatever cannot be right. ``sizes``: of the listed entries, in bytes."""
    if len(ladders) > MAX_LADDERS:
        raise BadBundle(f"The manifest has {len(ladders)} ladders.", f"At most {MAX_LADDERS} are allowed.")
    refuse_twice("ladder id", (ladder.id for ladder in ladders))
    first: dict[str, Ladder] = {}
    for ladder in ladders:
        _check_ladder(ladder, sizes)
        other = first.setdefault(ladder.engine, ladder)
        if _classes(ladder.stages[0]) != _classes(other.stages[0]):
            raise BadBundle(f"The ladders '{other.id}' and '{ladder.id}' have {_classes(other.stages[0])} and "
                            f"{_classes(ladder.stages[0])} classes.")


def _check_ladder(ladder: Ladder, sizes: Mapping[str, int]) -> None:
    what = f"ladder '{ladder.id[:100]}'"
    check_text("ladder id", ladder.id)
    check_text(f"{what}: precision", ladder.precision)
    check_format(what, ladder.engine, ladder.format)
    check_resolution(what, ladder.resolution)
    if not 1 <= len(ladder.stages) <= MAX_STAGES:
        raise BadBundle(f"The {what} has {len(ladder.stages)} stages.", f"From 1 to {MAX_STAGES} are allowed.")
    if ladder.weights is not None:
        check_reference(f"{what}: weights", ladder.weights, sizes)
        if ladder.format != "onnx":
            raise BadBundle(f"The {what} names an entry of weights, but a file of the format '{ladder.format}' holds "
                            "its own.")
    known: dict[str, TensorSpec] = {}
    for number, stage in enumerate(ladder.stages):
        _check_stage(f"{what}: stage {number}", stage, ladder, sizes)
        _check_chain(f"{what}: stage {number}", stage, known)
        if _classes(stage) != _classes(ladder.stages[0]):
            raise BadBundle(f"The stages 0 and {number} of {what} have {_classes(ladder.stages[0])} and "
                            f"{_classes(stage)} classes.")
    _check_image(what, ladder)
    names = ([ladder.stages[0].inputs[0].name], [stage.logits for stage in ladder.stages])
    for number, vector in enumerate(ladder.test_vectors):
        check_vector(f"{what}: test_vectors[{number}]", vector, what, names, sizes)


def _check_stage(what: str, stage: Stage, ladder: Ladder, sizes: Mapping[str, int]) -> None:
    check_reference(what, stage.entry, sizes)
    check_specs(what, stage.inputs, stage.outputs)
    if ladder.engine == "litert":
        check_text(f"{what}: signature", stage.signature)
    elif stage.signature:
        raise BadBundle(f"The {what} names a signature, which files of the format '{ladder.format}' do not have.")
    logits = next((spec for spec in stage.outputs if spec.name == stage.logits), None)
    if logits is None:
        raise BadBundle(f"The {what} has no output '{stage.logits[:100]}', which should hold its logits.",
                        f"Its outputs: {', '.join(spec.name for spec in stage.outputs[:20])}.")
    if logits.dtype != "float32" or len(logits.shape) != 2 or logits.shape[1] < 1:
        raise BadBundle(f"The {what}: the logits are {logits.dtype} of shape {list(logits.shape)}.",
                        "They must be float32 of shape [batch, classes], with a fixed number of classes.")


def _check_chain(what: str, stage: Stage, known: dict[str, TensorSpec]) -> None:
    """``known``: the image and the outputs of the stages before; those of this one are added."""
    if not known:
        if len(stage.inputs) != 1:
            raise BadBundle(f"The {what} has {len(stage.inputs)} inputs; the first stage has one, the image.")
        known[stage.inputs[0].name] = stage.inputs[0]
    for spec in stage.inputs:
        if spec.name not in known:
            raise BadBundle(f"The {what} needs '{spec.name[:100]}', which is neither the image nor an output of an "
                            "earlier stage.", f"There are: {', '.join(list(known)[:20])}.")
        if spec != known[spec.name]:
            raise BadBundle(f"The {what} takes '{spec.name[:100]}' as {spec.dtype} {list(spec.shape)} {spec.layout}, "
                            f"but it is {known[spec.name].dtype} {list(known[spec.name].shape)} "
                            f"{known[spec.name].layout}.")
    for spec in stage.outputs:
        if spec.name in known:
            raise BadBundle(f"The {what} has the output '{spec.name[:100]}', whose name is taken by the image or an "
                            "earlier stage.")
        known[spec.name] = spec


def _check_image(what: str, ladder: Ladder) -> None:
    image = ladder.stages[0].inputs[0]
    first = 1 if image.layout == "nhwc" else 2
    sides = image.shape[first:first + 2]
    if len(image.shape) != 4 or any(
            side not in (-1, wanted) for side, wanted in zip(sides, ladder.resolution, strict=True)):
        raise BadBundle(f"The {what} is for {ladder.resolution[0]} x {ladder.resolution[1]} pixels, but its image "
                        f"'{image.name[:100]}' has the shape {list(image.shape)}.")


def _classes(stage: Stage) -> int:
    return next(spec.shape[1] for spec in stage.outputs if spec.name == stage.logits)
