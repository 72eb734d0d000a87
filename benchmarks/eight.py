"""The table of the eight networks of different families, with the bars on them. Pure: figures in, text out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from benchmarks.report import OURS, NetResult, allowed_moves, best_peer, is_right, table
from benchmarks.timing import Ratio

__all__ = ["EIGHT", "geometric_mean", "misses", "section"]

EIGHT = ("ghostnet", "mobilenet_v3_small", "vit_tiny", "unet", "convnext_tiny", "shufflenet_v2", "lstm",
         "dynamic_convnet")
_MAX_MEAN_RATIO = 1.02
_MAX_LSTM_OPS = 24
_COST_PEER = "onnx2tf"


def geometric_mean(results: Iterable[NetResult]) -> Ratio:
    """Of our CPU time over the best peer's, with its 95 % interval: the networks' logarithms are independent."""
    logs, variances, blocks = [], [], 0
    for result in results:
        peer = best_peer(result)
        if peer is not None:
            ratio = result.timing.ratios[peer]
            logs.append(math.log(ratio.value))
            # a bootstrap interval may be skewed: the wider side counts
            side = max(math.log(ratio.upper / ratio.value), math.log(ratio.value / ratio.lower))
            variances.append(side ** 2)
            blocks += ratio.blocks
    mean, side = sum(logs) / len(logs), math.sqrt(sum(variances)) / len(logs)
    return Ratio(math.exp(mean), math.exp(mean - side), math.exp(mean + side), blocks)


def section(results: Sequence[NetResult]) -> str:
    """The section on those of ``results`` that are among the eight, as Markdown; "" where none is."""
    eight = [result for result in results if result.net in EIGHT]
    if not eight:
        return ""
    header = ["network", "TRANSPOSE + GATHER: ours", *(f"{peer}" for peer in _peers(eight)), "ops: ours",
              *_peers(eight), "CPU time / best peer", "interval", "best peer", "s, ours", "s, onnx2tf", "MB, ours",
              "MB, onnx2tf", "verifying, s", "same twice"]
    parts = ["## Eight families (CPU seconds and peak memory of the whole process, without verification)",
             table(header, [_row(result, _peers(eight)) for result in eight])]
    if any(best_peer(result) for result in eight):
        mean = geometric_mean(eight)
        parts.append(f"Geometric mean of our CPU time over the best peer's: {mean.value:.4f}, 95 % interval "
                     f"{mean.lower:.4f} to {mean.upper:.4f}.")
    return "\n\n".join(parts)


def _peers(results: Sequence[NetResult]) -> list[str]:
    return [name for name in ("litert_torch", "onnx2tf")
            if any(name in result.files or name in result.failures for result in results)]


def _row(result: NetResult, peers: Sequence[str]) -> list[str]:
    facts, best, cost = result.files[OURS], best_peer(result), result.costs.get(_COST_PEER)
    ratio = result.timing.ratios.get(best or "")
    ours = result.costs[OURS]
    return [
        result.net, str(facts.moves), *(_of_peer(result, peer, "moves") for peer in peers),
        str(facts.op_count), *(_of_peer(result, peer, "op_count") for peer in peers),
        f"{ratio.value:.3f}" if ratio else "", f"{ratio.lower:.3f} to {ratio.upper:.3f}" if ratio else "", best or "",
        f"{ours.cpu_s:.2f}", f"{cost.cpu_s:.2f}" if cost else "", f"{ours.peak_rss_bytes / 1e6:.0f}",
        f"{cost.peak_rss_bytes / 1e6:.0f}" if cost else "", f"{result.verified.parts['verified'].cpu_s:.2f}",
        ", ".join(f"{engine}: {said}" for engine, said in facts.repeats.items()),
    ]


def _of_peer(result: NetResult, peer: str, figure: str) -> str:
    facts = result.files.get(peer)
    if facts is None:
        return "does not run" if peer in result.failures else ""
    return f"{getattr(facts, figure)}{'' if is_right(facts) else ' (wrong)'}"


def misses(results: Sequence[NetResult]) -> list[str]:
    """One line for each bar on the eight that is missed, beyond those that every network has."""
    eight = [result for result in results if result.net in EIGHT]
    found = [f"{result.net}: {line}" for result in eight for line in _of_one(result)]
    if any(best_peer(result) for result in eight):
        mean = geometric_mean(eight)
        if mean.upper > _MAX_MEAN_RATIO:
            found.append(f"the geometric mean of the CPU times' ratios is {mean.value:.4f}, upper bound "
                         f"{mean.upper:.4f}")
    return found


def _of_one(result: NetResult) -> list[str]:
    facts, found = result.files[OURS], []
    right = {name: other for name, other in result.files.items() if name != OURS and is_right(other)}
    fewest = min((other.transposes for other in right.values()), default=None)
    if fewest is not None and facts.transposes > fewest:
        found.append(f"{facts.transposes} TRANSPOSE ops, the best peer has {fewest}")
    best = best_peer(result)
    if best is not None and facts.transposes < right[best].transposes and result.timing.ratios[best].value >= 1:
        found.append(f"{right[best].transposes - facts.transposes} TRANSPOSE ops fewer than {best}, but not faster")
    if result.net == "lstm":
        if facts.op_count > _MAX_LSTM_OPS:
            found.append(f"{facts.op_count} ops over all subgraphs; the bar is {_MAX_LSTM_OPS}")
        found += [f"{engine} run twice: {facts.repeats.get(engine, 'not run')}"
                  for engine in ("Interpreter", "CompiledModel") if facts.repeats.get(engine) != "same"]
    if facts.moves > allowed_moves(result.net) and facts.transposes <= allowed_moves(result.net):
        found.append(f"{facts.moves} TRANSPOSE and GATHER ops; the bar is {allowed_moves(result.net)}")
    return found
