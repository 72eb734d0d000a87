"""Graph rewrites on ONNX, one per file: each takes an ``onnx_ir`` model, changes it in place, and returns it with
whether anything changed.

The lists below say which run for which target, in which order, and why there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edgekit.converters.passes.fold_affine import fold_affine
from edgekit.converters.passes.fold_pad import fold_pad
from edgekit.converters.passes.fuse_gelu import fuse_gelu
from edgekit.converters.passes.fuse_group_norm import fuse_group_norm
from edgekit.converters.passes.fuse_hard_swish import fuse_hard_swish
from edgekit.converters.passes.fuse_mish import fuse_mish
from edgekit.converters.passes.inline_functions import inline_functions
from edgekit.converters.passes.last_step import last_step
from edgekit.converters.passes.stack_lstm import stack_lstm
from edgekit.converters.passes.unfold_contrib import unfold_contrib
from edgekit.converters.passes.unfold_qlinear import unfold_qlinear
from edgekit.errors import InternalError

if TYPE_CHECKING:
    import onnx_ir as ir

    Pass = Callable[[ir.Model], tuple[ir.Model, bool]]

__all__ = ["LITERT_PASSES", "PORTABLE_PASSES", "run_passes"]

#: valid for every engine and opset
PORTABLE_PASSES: tuple[Pass, ...] = (
    inline_functions,  # first: the others look at plain ops only
    fold_pad,  # before the folding of scales: a Pad between hides the convolution's input, not its output
    fold_affine,  # BatchNormalization, Mul and Add behind a convolution vanish into its weights
)
#: ops that LiteRT has as one and exporters write as several; ONNX Runtime finds these patterns itself
LITERT_PASSES: tuple[Pass, ...] = (
    *PORTABLE_PASSES,
    unfold_qlinear,
    unfold_contrib,
    fuse_group_norm,
    fuse_gelu,
    fuse_mish,
    fuse_hard_swish,  # also rewrites clip(x + 3, 0, 6) / 6 to HardSigmoid, which has its own lowering
    last_step,  # before the stacking, which may then leave out the layer's other steps
    stack_lstm,
)


def run_passes(model: ir.Model, passes: Sequence[Pass]) -> tuple[ir.Model, bool]:
    """``model`` after ``passes`` in order, and whether any of them changed it.

    Raises InternalError, naming the pass, when one breaks down: on a graph that is malformed, or by our fault.
    """
    modified = False
    for rewrite in passes:
        try:
            model, changed = rewrite(model)
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise InternalError(f"The pass '{rewrite.__name__}' failed: {type(error).__name__}: {error}.") from error
        modified = modified or changed
    return model, modified
