"""The tables of the converter comparison, and the list of the bars that were missed. Pure: figures in, text out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from benchmarks.costs import Cost
from benchmarks.files import FileFacts, Timing

__all__ = ["MAX_RATIO", "OURS", "TOLERANCE", "NetResult", "allowed_moves", "best_peer", "is_right", "misses", "summary",
           "table", "tables"]

OURS = "edgekit"
MAX_RATIO = 1.03
TOLERANCE = 1e-4
# How many TRANSPOSE (for shuffles: and GATHER) ops a network's own mathematics asks for at most; 0 for the others.
_MOVES = {"convnext_tiny": 1, "vit_tiny": 8, "shufflenet_v2": 16, "lstm": 2}


class NetResult(msgspec.Struct, frozen=True):
    """All figures of one network, by converter.

    ``command`` is ours as typed, ``edgekit convert --no-verify``; ``costs`` has the library call. ``verified`` has the
    part "verified", the check that a conversion adds unless told not to. ``export`` is the step torch -> ONNX, which
    litert-torch does not need. ``failures`` says why a converter is absent.
    """

    net: str
    files: dict[str, FileFacts]
    costs: dict[str, Cost]
    command: Cost
    export: Cost
    verified: Cost
    timing: Timing
    failures: dict[str, str] = {}


def best_peer(result: NetResult) -> str | None:
    """The peer with the fastest right file: the one our ratio is worst against. None where no peer has one."""
    ratios = result.timing.ratios
    return max(ratios, key=lambda name: ratios[name].value, default=None)


def allowed_moves(net: str) -> int:
    """The bar on ops that only move data in our file of ``net``."""
    return _MOVES.get(net, 0)


def is_right(facts: FileFacts) -> bool:
    """Whether a file answers as ONNX Runtime does."""
    return facts.max_abs_diff <= TOLERANCE * facts.output_range


def misses(result: NetResult) -> list[str]:
    """One line for each bar that our converter misses on this network."""
    facts = result.files[OURS]
    found = []
    if facts.transposes > allowed_moves(result.net):
        found.append(f"{facts.transposes} TRANSPOSE ops are left")
    if not is_right(facts):
        found.append(f"max |d| is {facts.max_abs_diff:.1e} on a range of {facts.output_range:.3g}")
    if not result.timing.ratios:
        found.append("no peer made a file to compare with")
    for name, ratio in result.timing.ratios.items():
        if ratio.upper > MAX_RATIO:
            found.append(f"CPU time over {name} is {ratio.value:.3f} [{ratio.lower:.3f}, {ratio.upper:.3f}]")
    for step, ours in (("the library call", result.costs[OURS]), ("the command", result.command)):
        for name, peer in result.costs.items():
            if name != OURS:
                found += [f"{step} {what} {name}" for what in _worse(ours, peer)]
    converted = {name: cost.parts["converted"].cpu_s for name, cost in result.costs.items()}
    found += [f"without imports, converting takes {converted[OURS]:.2f} CPU seconds, {name} {other:.2f}"
              for name, other in converted.items() if name != OURS and other <= converted[OURS]]
    return [f"{result.net}: {line}" for line in found]


def summary(results: Iterable[NetResult]) -> list[str]:
    """One line for each network: our CPU time against that of the best peer's file, with the upper 95 % bound."""
    lines = []
    for result in results:
        peer = best_peer(result)
        if peer is not None:
            ratio = result.timing.ratios[peer]
            lines.append(f"{result.net}: {ratio.value:.3f} x {peer}, upper bound {ratio.upper:.3f}")
    return lines


def _worse(ours: Cost, peer: Cost) -> list[str]:
    found = []
    if ours.cpu_s >= peer.cpu_s:
        found.append(f"takes {ours.cpu_s:.2f} CPU seconds, not fewer than the {peer.cpu_s:.2f} of")
    if ours.peak_rss_bytes >= peer.peak_rss_bytes:
        found.append(f"needs {ours.peak_rss_bytes / 1e6:.0f} MB, not less than the {peer.peak_rss_bytes / 1e6:.0f} of")
    return found


def tables(results: Sequence[NetResult]) -> str:
    """The three tables, as Markdown."""
    parts = [
        "## Files", table(
            ["network", "converter", "TRANSPOSE", "ops", "partitions", "bytes", "max abs diff", "output range"],
            _file_rows(results)),
        "## LiteRT CPU time, 1 thread (ratio ours / peer, 95 % interval)", table(
            ["network", "converter", "CPU ms", "ours / this", "interval", "blocks"], _time_rows(results)),
        "## Cost of converting (seconds)", table(
            ["network", "step", "CPU, process", "wall, process", "CPU, imports", "wall, imports",
             "CPU, conversion", "wall, conversion", "peak MB"], _cost_rows(results)),
        "'edgekit: verify' is the check that a conversion adds unless told not to; 'export' is torch to ONNX, which "
        "both ONNX converters need and litert-torch does not.",
    ]
    return "\n\n".join(parts)


def _file_rows(results: Iterable[NetResult]) -> Iterable[list[str]]:
    for result in results:
        for name, facts in result.files.items():
            yield [result.net, name, str(facts.transposes), str(facts.op_count), str(facts.partitions),
                   f"{facts.size_bytes:,}", f"{facts.max_abs_diff:.1e}", f"{facts.output_range:.3g}"]
        for name, reason in result.failures.items():
            yield [result.net, name, f"failed: {reason}", "", "", "", "", ""]


def _time_rows(results: Iterable[NetResult]) -> Iterable[list[str]]:
    for result in results:
        for name, cpu_ms in result.timing.cpu_ms.items():
            row = [result.net, name, f"{cpu_ms:.3f}"]
            ratio = result.timing.ratios.get(name)
            yield row + (["", "", ""] if ratio is None else
                         [f"{ratio.value:.3f}", f"{ratio.lower:.3f} to {ratio.upper:.3f}", str(ratio.blocks)])


def _cost_rows(results: Iterable[NetResult]) -> Iterable[list[str]]:
    for result in results:
        for name, cost in [*result.costs.items(), (f"{OURS}: command", result.command), ("export", result.export)]:
            whole = [f"{cost.cpu_s:.2f}", f"{cost.wall_s:.2f}"]
            parts = [f"{value:.2f}" for part in (cost.parts["imported"], cost.parts["converted"])
                     for value in (part.cpu_s, part.wall_s)]
            if cost is result.command:
                parts = [""] * len(parts)  # it converts in a child process, whose imports cannot be told apart
            yield [result.net, name, *whole, *parts, f"{cost.peak_rss_bytes / 1e6:.0f}"]
        check = result.verified.parts["verified"]
        yield [result.net, f"{OURS}: verify", "", "", "", "", f"{check.cpu_s:.2f}", f"{check.wall_s:.2f}",
               f"{result.verified.peak_rss_bytes / 1e6:.0f}"]


def table(header: list[str], rows: Iterable[list[str]]) -> str:
    """A Markdown table with padded columns."""
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    text = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
            for line in lines]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(text)
