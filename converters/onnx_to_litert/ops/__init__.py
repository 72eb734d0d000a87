"""The explicit list of ops: ONNX op type -> the function that lowers it.

To add an op: write ``def op(b: Builder, node: Node) -> View`` (or a list of views) in the file of its family, add a
line here, add a case to tests/ops/cases.py.
"""

from __future__ import annotations

from collections.abc import Callable

from edgekit.converters.onnx_to_litert.builder import Builder
from edgekit.converters.onnx_to_litert.node import Node
from edgekit.converters.onnx_to_litert.ops import activation as act
from edgekit.converters.onnx_to_litert.ops import (
    attention,
    bits,
    control,
    conv,
    detection,
    einsum,
    elementwise,
    grid,
    indexing,
    integer,
    matmul,
    norm,
    padding,
    pool,
    pool_axes,
    quantize,
    recurrent,
    reduce,
    resize,
    selection,
    shape,
    slicing,
    spectral,
    transcendental,
    unique,
    unpool,
)
from edgekit.converters.onnx_to_litert.view import View

__all__ = ["LOWERINGS", "REASONS", "Lowering"]

Lowering = Callable[[Builder, Node], View | list[View]]

LOWERINGS: dict[str, Lowering] = {
    # convolution and pooling
    "Conv": conv.conv,
    "ConvTranspose": conv.conv_transpose,
    "MaxPool": pool.max_pool,
    "AveragePool": pool.average_pool,
    "GlobalAveragePool": pool.global_average_pool,
    "GlobalLpPool": pool.global_lp_pool,
    "GlobalMaxPool": pool.global_max_pool,
    "LpPool": pool_axes.lp_pool,
    "MaxUnpool": unpool.max_unpool,
    "GridSample": grid.grid_sample,
    "Resize": resize.resize,
    "Upsample": resize.resize,
    "DepthToSpace": slicing.depth_to_space,
    "SpaceToDepth": slicing.space_to_depth,
    # transforms
    "Col2Im": spectral.col2im,
    "DFT": spectral.dft,
    "STFT": spectral.stft,
    # quantization
    "ConvInteger": integer.conv_integer,
    "DequantizeLinear": quantize.dequantize,
    "MatMulInteger": integer.matmul_integer,
    "QuantizeLinear": quantize.quantize,
    # matrices
    "Attention": attention.attention,
    "Einsum": einsum.einsum,
    "Gemm": matmul.gemm,
    "MatMul": matmul.matmul,
    # normalisation
    "BatchNormalization": norm.batch_norm,
    "GroupNormalization": norm.group_norm,
    "InstanceNormalization": norm.instance_norm,
    "LayerNormalization": norm.layer_norm,
    "LpNormalization": norm.lp_norm,
    "LRN": norm.lrn,
    "RMSNormalization": norm.rms_norm,
    # activations
    **{name: elementwise.unary(kind) for name, kind in elementwise.UNARY.items()},
    "Celu": act.celu,
    "Clip": elementwise.clip,
    "Elu": act.elu,
    "Gelu": act.gelu,
    "HardSigmoid": act.hard_sigmoid,
    "HardSwish": act.hard_swish,
    "LeakyRelu": act.leaky_relu,
    "LogSoftmax": act.log_softmax,
    "Mish": act.mish,
    "PRelu": act.prelu,
    "Selu": act.selu,
    "Softmax": act.softmax,
    "Softplus": act.softplus,
    "Softsign": act.softsign,
    "Swish": act.swish,
    "ThresholdedRelu": act.thresholded_relu,
    # elementwise
    **{name: elementwise.binary(kind) for name, kind in elementwise.BINARY.items()},
    **{name: elementwise.compare(kind) for name, kind in elementwise.COMPARE.items()},
    "Cast": elementwise.cast,
    "CastLike": elementwise.cast,
    "Div": elementwise.divide,
    "Dropout": elementwise.dropout,
    "Identity": elementwise.identity_op,
    "Max": elementwise.variadic("MAXIMUM"),
    "Min": elementwise.variadic("MINIMUM"),
    "Mod": elementwise.modulo,
    "Not": elementwise.not_op,
    "Pow": elementwise.power,
    "Reciprocal": elementwise.reciprocal,
    "Sum": elementwise.variadic("ADD"),
    "Where": elementwise.where,
    **{name: transcendental.elementwise(function) for name, function in transcendental.FUNCTIONS.items()},
    "BitCast": bits.bit_cast,
    "BitShift": bits.bit_shift,
    "BitwiseAnd": bits.bitwise_and,
    "BitwiseNot": bits.bitwise_not,
    "BitwiseOr": bits.bitwise_or,
    "BitwiseXor": bits.bitwise_xor,
    "IsInf": bits.is_inf,
    "IsNaN": bits.is_nan,
    "Mean": elementwise.mean,
    # reductions
    **{name: reduce.reduction(kind) for name, kind in reduce.REDUCTIONS.items()},
    "ReduceL1": reduce.reduction("SUM", before=reduce.absolute),
    "ReduceL2": reduce.reduction("SUM", before=reduce.square, after=reduce.root),
    "ReduceLogSum": reduce.reduction("SUM", after=reduce.logarithm),
    "ReduceLogSumExp": reduce.log_sum_exp,
    "ReduceSumSquare": reduce.reduction("SUM", before=reduce.square),
    "ArgMax": reduce.arg_extreme("ARG_MAX"),
    "ArgMin": reduce.arg_extreme("ARG_MIN"),
    # control flow and recurrent
    "If": control.if_op,
    "Loop": control.loop,
    "Scan": control.scan,
    "GRU": recurrent.gru,
    "LSTM": recurrent.lstm,
    "RNN": recurrent.rnn,
    # shape
    "ConstantOfShape": shape.constant_of_shape,
    "Expand": shape.expand,
    "Flatten": shape.flatten,
    "Reshape": shape.reshape,
    "Shape": shape.shape,
    "Size": shape.size,
    "Squeeze": shape.squeeze,
    "Tile": shape.tile,
    "Transpose": shape.transpose,
    "Unsqueeze": shape.unsqueeze,
    # indexing and selection
    "Compress": selection.compress,
    "CumProd": selection.cum_prod,
    "CumSum": selection.cum_sum,
    "EyeLike": selection.eye_like,
    "GatherElements": indexing.gather_elements,
    "GatherND": indexing.gather_nd,
    "Hardmax": selection.hardmax,
    "NonMaxSuppression": detection.non_max_suppression,
    "NonZero": selection.non_zero,
    "OneHot": selection.one_hot,
    "Range": selection.range_op,
    "ReverseSequence": selection.reverse_sequence,
    "Scatter": indexing.scatter_elements,
    "ScatterElements": indexing.scatter_elements,
    "ScatterND": indexing.scatter_nd,
    "TensorScatter": indexing.tensor_scatter,
    "TopK": selection.top_k,
    "Trilu": selection.trilu,
    "Unique": unique.unique,
    # slicing
    "Concat": slicing.concat,
    "Gather": slicing.gather,
    "Pad": padding.pad,
    "Slice": slicing.slice_op,
    "Split": slicing.split,
}

#: why an op is not in the list, where that is known: op -> (reason, remedy)
REASONS: dict[str, tuple[str, str]] = {**control.UNKNOWN_KINDS}
