"""Rows, bars and tables of ``benchmarks.quantize``."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import msgspec

from benchmarks.quantize_cases import FITTED, FLOOR_DB
from edgekit.converters.onnx_to_litert.schema import schema
from edgekit.converters.quantize import Quality, Speed
from edgekit.converters.quantize.flatbuffer import constant_bytes, read_tables

__all__ = ["AGAINST_STOCK", "Point", "Row", "StockRow", "misses", "pareto_lines", "size_reason", "table"]

AGAINST_STOCK = ("mobilenet_v3_small", "vit_tiny", "convnext_tiny")
_FASTER, _MEAN, _AGAINST, _SIZE, _SEARCH_S, _DROP, _AGREEMENT = 1.3, 1.8, 2.0, 0.32, 180.0, 0.5, 0.97


class StockRow(msgspec.Struct, frozen=True):
    """The stock recipe's file. ``speed`` over float32 and ``quality`` are None where ``failure`` says why."""

    speed: Speed | None
    quality: Quality | None
    failure: str


class Point(msgspec.Struct, frozen=True):
    """A candidate that no other beats in time, size and quality together, as the search measured it."""

    name: str
    speed: Speed
    size_ratio: float
    quality: Quality


class Row(msgspec.Struct, frozen=True):
    """One network. ``speed``: of the chosen file, over float32. ``size_ratio``: over the float32 file's.

    ``quality`` and that of ``stock`` are on data that the search did not see. ``recipe_rebuilds``: the recipe's JSON
    made the same bytes twice. ``size_reason``: what the chosen file consists of. ``further``: on a larger set of images
    of another kind.
    """

    name: str
    chosen: str
    float_ms: float
    speed: Speed
    size_ratio: float
    size_reason: str
    quality: Quality
    stock: StockRow
    search_seconds: float
    trained: bool
    recipe_rebuilds: bool
    notes: tuple[str, ...]
    pareto: tuple[Point, ...]
    further: Quality | None = None


def size_reason(data: bytes, float_bytes: int) -> str:
    """What ``data`` consists of, in % of the float file: constants by dtype, and the rest (graph, names, scales)."""
    tables = read_tables(data)
    types = {value: name.lower() for name, value in vars(schema().TensorType).items() if isinstance(value, int)}
    sizes: Counter[str] = Counter()
    seen: set[int] = set()
    for subgraph in tables.subgraphs:
        for tensor in subgraph.tensors:
            if tensor.buffer not in seen and constant_bytes(tables, tensor):
                seen.add(tensor.buffer)
                sizes[f"{types[tensor.type]} constants"] += constant_bytes(tables, tensor)
    sizes["graph, names and scales"] = len(data) - sum(sizes.values())
    return ", ".join(f"{100 * size / float_bytes:.1f} % {what}" for what, size in sizes.most_common())


def _floor(name: str) -> float:
    return FLOOR_DB.get(FITTED.get(name, name), 30.0)


def _mean(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values)) if values else float("nan")


def _against_stock(rows: Sequence[Row]) -> list[float]:
    return [row.stock.speed.ratio / row.speed.ratio for row in rows
            if row.name in AGAINST_STOCK and row.stock.speed is not None]


def _referred(rows: Sequence[Row]) -> list[Row]:
    """The rows that the means are over: each network once."""
    return [row for row in rows if row.name not in FITTED]


def _row_misses(row: Row) -> list[str]:
    quality, speed_up, found = row.quality, 1 / row.speed.ratio, []
    if speed_up < _FASTER:
        found.append(f"{speed_up:.2f} times as fast as float32, below {_FASTER}")
    if row.size_ratio > _SIZE:
        found.append(f"{100 * row.size_ratio:.1f} % of float32's size, above {100 * _SIZE:.0f} % ({row.size_reason})")
    if row.search_seconds > _SEARCH_S:
        found.append(f"the search took {row.search_seconds:.0f} s, above {_SEARCH_S:.0f}")
    if not row.recipe_rebuilds:
        found.append("the recipe's JSON does not make the same bytes again")
    if not row.trained:
        if quality.sqnr_db < _floor(row.name):
            found.append(f"{quality.sqnr_db:.1f} dB, below {_floor(row.name):.0f}")
        return found
    if quality.drop_points is None or quality.agreement is None:
        return [*found, "was not judged by accuracy"]
    if quality.drop_points > _DROP:
        found.append(f"loses {quality.drop_points:.2f} points, above {_DROP}")
    if quality.agreement < _AGREEMENT:
        found.append(f"agrees on {100 * quality.agreement:.1f} %, below {100 * _AGREEMENT:.0f} %")
    return found


def misses(rows: Sequence[Row]) -> list[str]:
    """The bars that are not met, with the figures."""
    found = [f"{row.name}: {miss}" for row in rows for miss in _row_misses(row)]
    mean = _mean([1 / row.speed.ratio for row in _referred(rows)])
    if mean < _MEAN:
        found.append(f"geometric mean of the speed-up {mean:.2f}, below {_MEAN}")
    against = _mean(_against_stock(rows))
    if against < _AGAINST:
        found.append(f"geometric mean against the stock recipe {against:.2f}, below {_AGAINST:.0f}")
    return found


def _judged(quality: Quality) -> str:
    if quality.drop_points is None or quality.drop_low is None or quality.drop_high is None:
        return "-"
    return (f"{-quality.drop_points:+.2f} points ({-quality.drop_high:+.2f} to {-quality.drop_low:+.2f}), "
            f"{100 * (quality.agreement or 0.0):.1f} % of {quality.samples}")


def _stock_cell(stock: StockRow) -> str:
    if stock.speed is None or stock.quality is None:
        return stock.failure[:60].replace("|", "/").replace("\n", " ")
    return ", ".join([f"{1 / stock.speed.ratio:.2f}", f"{stock.quality.sqnr_db:.1f}",
                      *([_judged(stock.quality)] if stock.quality.drop_points is not None else [])])


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = ["| network | float32 ms | chosen | speed-up (95 %) | SQNR dB | size | accuracy (95 %), agreement "
             "| stock static: speed-up, dB | search s | same bytes twice |", "|" + "---|" * 10]
    for row in rows:
        speed = row.speed
        lines.append(
            f"| {row.name} | {row.float_ms:.2f} | {row.chosen} | {1 / speed.ratio:.2f} ({1 / speed.high:.2f} to "
            f"{1 / speed.low:.2f}) | {row.quality.sqnr_db:.1f} | {100 * row.size_ratio:.1f} % | {_judged(row.quality)} "
            f"| {_stock_cell(row.stock)} | {row.search_seconds:.0f} | {'yes' if row.recipe_rebuilds else 'NO'} |")
    lines += ["", "Geometric mean of the speed-up over float32, each network once: "
              f"{_mean([1 / row.speed.ratio for row in _referred(rows)]):.2f}; over the stock recipe "
              f"({', '.join(AGAINST_STOCK)}): {_mean(_against_stock(rows)):.2f}."]
    lines += [f"{row.name} on other images: {_judged(row.further)}, {row.further.sqnr_db:.1f} dB."
              for row in rows if row.further is not None]
    return "\n".join(lines)


def pareto_lines(rows: Sequence[Row]) -> list[str]:
    """Markdown: for each network that misses a bar, what can be had instead."""
    lines: list[str] = []
    for row in rows:
        missed = _row_misses(row)
        if missed:
            lines += ["", f"{row.name} ({'; '.join(missed)}): candidates that no other beats", "",
                      "| candidate | speed-up (95 %) | size | SQNR dB | accuracy, agreement |", "|---|---|---|---|---|"]
            lines += [f"| {point.name} | {1 / point.speed.ratio:.2f} ({1 / point.speed.high:.2f} to "
                      f"{1 / point.speed.low:.2f}) | {100 * point.size_ratio:.1f} % | {point.quality.sqnr_db:.1f} | "
                      f"{_judged(point.quality)} |" for point in sorted(row.pareto, key=lambda each: each.speed.ratio)]
    return lines
