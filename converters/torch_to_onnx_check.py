"""Whether an exported file answers as the network it was made from.

The exporter replaces some ops by others that are right for the example only, without a guard and without a word: a
dynamic ``adaptive_avg_pool2d`` to 7 x 7 becomes an average pool with the kernel that suits the example's size. So the
file is run at the example's sizes, and, when it has dynamic axes, at others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgekit.artifacts import Array, OnnxModel
from edgekit.converters.dynamic_dims import AxisGroup, grown
from edgekit.errors import BadModel, BadRecipe, EngineError
from edgekit.parity import compare_outputs, run_isolated
from edgekit.sample_inputs import random_inputs

if TYPE_CHECKING:
    import torch

__all__ = ["check_export"]

#: of the range of an output: far above rounding, far below a wrong op
_TOLERANCE = 1e-3
_SKIP = "ExportRecipe(verify=False) skips this check, for a network that draws random numbers, say."


def check_export(
    module: torch.nn.Module, example: Sequence[torch.Tensor], model: OnnxModel, groups: Sequence[AxisGroup]
) -> None:
    """Run ``module`` (in eval mode) and ``model`` on ``example`` and, with dynamic axes, on larger random inputs.

    Raises BadModel when they differ on the example, BadRecipe when they differ only at another size.
    """
    names = [spec.name for spec in model.inputs]
    problem = _difference(module, model, {name: _numpy(x) for name, x in zip(names, example, strict=True)})
    if problem:
        raise BadModel(f"The exported file does not answer as the network does: {problem}.", _SKIP)
    if not groups:
        return
    shapes = grown([tuple(tensor.shape) for tensor in example], groups)
    by_name = dict(zip(names, shapes, strict=True))
    problem = _difference(module, model, random_inputs(model.inputs, by_name))
    if problem:
        raise BadRecipe(
            f"The exported file is right for the example's sizes only; for {by_name} this is wrong: {problem}.",
            "An op of the network has no dynamic form in ONNX (adaptive pooling to more than 1 x 1 is one). "
            f"Export with fixed sizes. {_SKIP}",
        )


def _difference(module: torch.nn.Module, model: OnnxModel, inputs: Mapping[str, Array]) -> str:
    """What is wrong with the answer of ``model``, "" when nothing is."""
    import torch
    from torch.utils import _pytree  # the order in which torch.export flattens what a network returns

    with torch.no_grad():
        result = module(*(torch.from_numpy(np.array(array)) for array in inputs.values()))
    leaves = [leaf for leaf in _pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]
    want = {spec.name: _numpy(leaf) for spec, leaf in zip(model.outputs, leaves, strict=True)}
    try:
        got = run_isolated("ort", model.data, (model.inputs, model.outputs), inputs, "The exported file")
    except EngineError as error:
        return error.message.rstrip(".")
    failed = [output for output in compare_outputs(want, got, _TOLERANCE) if not output.passed]
    return "; ".join(
        f"output '{output.name}' has {output.problem}" if output.problem
        else f"output '{output.name}' differs by {output.max_abs_diff:.3g} at a range of {output.output_range:.3g}"
        for output in failed
    )


def _numpy(tensor: torch.Tensor) -> Array:
    array: Array = tensor.detach().cpu().numpy()
    return array
