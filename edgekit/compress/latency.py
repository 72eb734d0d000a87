"""Predicted latencies for compression: of a whole network, and of a layer beside its two halves."""

from __future__ import annotations

import functools
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn

from edgekit.compress.couplings import Product
from edgekit.compress.plan import Compressor, Pays, Plan
from edgekit.device_profiles import DeviceProfile
from edgekit.errors import BudgetImpossible
from edgekit.graph.costs import GraphCosts, OpCost
from edgekit.profile.files import predict_file
from edgekit.profile.predict import LatencyPrediction, predict
from edgekit.recipe import ExportRecipe

__all__ = ["plan_for_latency", "predicted", "split_pays"]

_STEPS = 8


def predicted(network: nn.Module, example: Tensor, profile: DeviceProfile) -> LatencyPrediction:
    """What ``profile`` says about ``network`` on one sample, exported to ONNX."""
    from edgekit.converters.torch_to_onnx import export

    with tempfile.TemporaryDirectory(prefix="edgekit-compress-") as folder:
        path = Path(folder) / "network.onnx"
        path.write_bytes(export(network, example[:1], ExportRecipe(verify=False)).data)
        return predict_file(path, profile)


def split_pays(profile: DeviceProfile) -> Pays:
    """Whether a layer is predicted to be faster as two. Its image is taken as square and its stride as 1."""
    @functools.cache
    def pays(product: Product, cin: int, cout: int, rank: int) -> bool:
        whole = (_op(product, cin, cout, product.kernel),)
        halves = (_op(product, cin, rank, product.kernel), _op(product, rank, cout, 1))
        one, two = (sum(op.latency_ms for op in predict(GraphCosts(ops, 0, 0), profile).ops) for ops in (whole, halves))
        return two < one

    return pays


def plan_for_latency(compressor: Compressor, target_ms: float, predicted_ms: Callable[[nn.Module], float]) -> Plan:
    """The plan with the most multiply-adds whose network is predicted to take at most ``target_ms``, by bisection.

    Raises BudgetImpossible, naming what the smallest network takes.
    """
    smallest = compressor.smallest()
    least = predicted_ms(compressor.apply(smallest))
    if least > target_ms:
        raise BudgetImpossible(f"The smallest network is predicted to take {least:.3g} ms, not {target_ms:.3g} ms.",
                               "Allow more, or choose another network or device.")
    best, low, high = smallest, smallest.macs, compressor.structure.macs
    for _ in range(_STEPS):
        plan = compressor.plan((low + high) // 2)
        if predicted_ms(compressor.apply(plan)) <= target_ms:
            best, low = plan, (low + high) // 2
        else:
            high = (low + high) // 2
    return best


def _op(product: Product, cin: int, cout: int, kernel: int) -> OpCost:
    side = max(1, math.isqrt(product.pixels))
    size = max(1, math.isqrt(kernel))
    linear = product.kind == "linear"
    op_class = "conv" if not linear else "fc" if product.pixels == 1 else "matmul"
    return OpCost(name=product.weight, kind="Gemm" if linear else "Conv", op_class=op_class,  # type: ignore[arg-type]
                  macs=product.pixels * kernel * cin * cout, in_elements=product.pixels * cin,
                  out_elements=product.pixels * cout, weight_elements=kernel * cin * cout, cin=cin, cout=cout,
                  out_h=product.pixels if linear else side, out_w=1 if linear else side, kernel_h=size, kernel_w=size)
