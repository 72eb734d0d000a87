"""What to change about a model, each with the reason: the part of a report that a person acts on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Literal

import msgspec

from edgekit.graph.costs import GraphCosts, OpClass, OpCost
from edgekit.profile.predict import LatencyPrediction
from edgekit.report.layers import LayerNoise
from edgekit.report.placed import PlacementReport

__all__ = ["Finding", "findings_of"]

Level = Literal["bad", "warning", "note", "good"]
_ORDER: tuple[Level, ...] = ("bad", "warning", "note", "good")

_BIG_SHARE = 0.2
_MOVING_SHARE = 0.1
_CURVED_SHARE = 0.08
_NARROW_SHARE = 0.1
_LARGE_WEIGHTS = 8_000_000
_POOR_DB, _FAIR_DB = 10.0, 20.0
_WORTH_DB = 1.0

_INSTEAD: dict[str, str] = {
    "ARG_MAX": "leave the arg max to the app", "BROADCAST_TO": "let the arithmetic op broadcast",
    "CAST": "feed the type that the network computes in", "CUMSUM": "multiply with a triangular matrix",
    "GATHER": "use slices where the indices are constant", "GATHER_ND": "use slices where the indices are constant",
    "HARD_SWISH": "in int8 it is not taken: let edgekit quantize choose what stays float",
    "L2_NORMALIZATION": "write it as multiplication, sum and RSQRT", "PACK": "use a concatenation",
    "PADV2": "pad with zeros", "POW": "use multiplications for small whole exponents",
    "REDUCE_MAX": "use a max pooling over the whole image", "RELU_0_TO_1": "use RELU6 with a scale",
    "SELECT_V2": "multiply with a mask", "SPLIT_V": "use equal parts or slices",
    "TILE": "let the arithmetic op broadcast",
    "TOPK_V2": "leave the choice of the best to the app", "UNPACK": "use slices",
}  # fmt: skip
_LIGHTER: dict[OpClass, str] = {
    "conv": "Halve its channels, raise the stride before it, or replace it by a depthwise and a 1x1 convolution.",
    "depthwise": "A smaller kernel or an earlier stride helps; channels cost less in the 1x1 convolutions.",
    "grouped": "Groups of few channels leave a processor idle: fewer groups, or none.",
    "fc": "Its time is the reading of its weights: pool to 1x1 before it, quantize it to int8, or factor the matrix.",
    "matmul": "Fewer tokens (a larger patch or stride) lower it quadratically in attention, linearly elsewhere.",
    "pool": "Give the convolution before it the stride instead.",
    "copy": "Reorder the graph so that the data needs not be moved: see what surrounds it.",
    "transcendental": "HardSwish, HardSigmoid or ReLU6 cost a fraction, with some training after the change.",
    "softmax": "Over few classes only; leave it out of the network where the app needs the best class alone.",
}


class Finding(msgspec.Struct, frozen=True):
    """``title``: what was seen, in one line; ``detail``: where, with figures; ``remedy``: what to do, "" when good."""

    level: Level
    title: str
    detail: str
    remedy: str


def findings_of(
    costs: GraphCosts, prediction: LatencyPrediction, placement: PlacementReport | None,
    layers: Sequence[LayerNoise] | None = None,
) -> tuple[Finding, ...]:
    """Everything worth acting on, the worst first."""
    found = [*_trust(prediction), *_placed(placement), *_time(costs, prediction), *_memory(costs), *_noise(layers),
             *_hinted(placement)]
    return tuple(sorted(found, key=lambda each: _ORDER.index(each.level)))


def _trust(prediction: LatencyPrediction) -> Iterator[Finding]:
    measure = "Measure on the device before anything depends on it: edgekit bench FILE --remote ssh://BOARD"
    level: Level = "note" if prediction.inside_domain else "warning"
    if prediction.findings:
        yield Finding(level, "The prediction is weaker than its band says", " ".join(prediction.findings), measure)


def _placed(placement: PlacementReport | None) -> Iterator[Finding]:
    if placement is None:
        return
    found = placement.xnnpack
    if found is not None:
        left = [each for each in found.left if not each.reason.startswith("it is prepared once")]
        counts = Counter(each.kind for each in left)
        named = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
        instead = "; ".join(f"{kind}: {_INSTEAD[kind]}" for kind in counts if kind in _INSTEAD)
        if found.partitions > 1:
            yield Finding(
                "warning", f"XNNPACK takes the graph in {found.partitions} pieces",
                f"Outside: {named or 'only constants'}. At each border the built-in kernels take over, on one thread.",
                f"{instead or 'Replace these ops, or move them to the ends of the network'}.")
        elif left:
            yield Finding("note", f"{len(left)} ops run outside XNNPACK", f"{named}, at an end of the network.",
                          f"{instead or 'Nothing has to be done unless they take long: see the ops below'}.")
        else:
            yield Finding("good", "XNNPACK takes the whole graph", f"{found.ops} ops in one piece.", "")


def _hinted(placement: PlacementReport | None) -> Iterator[Finding]:
    for hint in () if placement is None else placement.hints:
        if hint.left:
            kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(e.kind for e in hint.left).most_common(6))
            yield Finding("note", f"{hint.title} would leave {len(hint.left)} of {hint.ops} ops to the CPU",
                          f"{kinds}: {hint.left[0].reason}. A rule, not a compilation.",
                          "Matters only if this accelerator is used; its documentation lists what it takes.")


def _time(costs: GraphCosts, prediction: LatencyPrediction) -> Iterator[Finding]:
    timed = list(zip(costs.ops, prediction.ops, strict=False))  # a prediction may add the overhead of a run
    op, slowest = max(timed, key=lambda pair: pair[1].latency_ms)
    if slowest.share > _BIG_SHARE:
        yield Finding("warning" if slowest.share > 2 * _BIG_SHARE else "note",
                      f"One op takes {slowest.share:.0%} of the time",
                      f"'{op.name}', {op.kind}, {slowest.latency_ms:.3g} ms{_size(op)}.",
                      _LIGHTER.get(op.op_class, "Ask whether the network needs it."))
    shares: Counter[OpClass] = Counter()
    for each, latency in timed:
        shares[each.op_class] += latency.share  # type: ignore[assignment]  # a Counter of parts of one
    moving = shares["copy"] + shares["channels"]
    if moving > _MOVING_SHARE:
        kinds = Counter(each.kind for each, _ in timed if each.op_class in ("copy", "channels"))
        yield Finding("warning", f"{moving:.0%} of the time only moves data",
                      ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(5)) + ".",
                      "Add instead of concatenating, stride instead of slicing, keep one order of axes throughout.")
    if shares["transcendental"] > _CURVED_SHARE:
        yield Finding("note", f"{shares['transcendental']:.0%} of the time goes into exp, tanh and the like",
                      "Sigmoid, Swish and GELU are computed element by element.", _LIGHTER["transcendental"])
    narrow = [(each, latency) for each, latency in timed
              if each.op_class == "conv" and (each.cin % 4 or each.cout % 4) and each.cin > 4]
    share = sum(latency.share for _, latency in narrow)
    if share > _NARROW_SHARE:
        worst = max(narrow, key=lambda pair: pair[1].latency_ms)[0]
        yield Finding("note", f"{share:.0%} of the time is in convolutions whose channels are no multiple of 4",
                      f"The largest: '{worst.name}', {worst.cin} to {worst.cout} channels.",
                      "Round channels up to a multiple of 8: the registers compute them anyway.")
    if costs.weight_bytes > _LARGE_WEIGHTS and not any(each.weight_bits <= 8 for each in costs.ops if each.macs):
        yield Finding("note", f"The weights take {costs.weight_bytes / 1e6:.1f} MB in floating point",
                      "They are read from memory at every run, and downloaded by every user.",
                      "edgekit quantize makes them a quarter of it, and says what it costs in accuracy.")


def _size(op: OpCost) -> str:
    if not op.macs:
        return ""
    return f", {op.macs / 1e6:.3g} M multiply-adds, {op.cin} to {op.cout} channels at {op.out_h}x{op.out_w}"


def _memory(costs: GraphCosts) -> Iterator[Finding]:
    live = costs.live_bytes
    if not live or len(live) < 4:
        return
    peak = max(live)
    at = costs.ops[live.index(peak)]
    if peak > 3 * median(live) and peak > 500_000:
        yield Finding("note", f"A few ops decide the memory: {peak / 1e6:.2f} MB at '{at.name}'",
                      f"Half of the ops need no more than {median(live) / 1e6:.2f} MB.",
                      "Lower the resolution earlier (a larger first stride), or run that part in tiles.")


def _noise(layers: Sequence[LayerNoise] | None) -> Iterator[Finding]:
    if not layers:
        return
    last = layers[-1]
    if last.sqnr_db < _FAIR_DB:
        yield Finding("bad" if last.sqnr_db < _POOR_DB else "warning",
                      f"Quantization leaves {last.sqnr_db:.1f} dB of signal over noise at the end",
                      f"'{last.tensor}', {last.kind}, on random inputs. Classifiers usually want 20 dB and more.",
                      "edgekit quantize with --data (real samples) and a goal keeps the worst layers in float.")
    worst = max(layers, key=lambda each: each.gain_db)
    if worst.gain_db > _WORTH_DB:
        outliers = f"; {worst.outlier_channels} of its channels stretch the range" if worst.outlier_channels else ""
        yield Finding("note", f"'{worst.tensor}' adds the most noise",
                      f"{worst.kind}: without its share the sum of all noise would be {worst.gain_db:.1f} dB lower"
                      f"{outliers}.", "Keep this op in float, or quantize it by channel.")
    if last.sqnr_db >= _FAIR_DB:
        yield Finding("good", f"Quantization leaves {last.sqnr_db:.1f} dB at the end", f"'{last.tensor}'.", "")
