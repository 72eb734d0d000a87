"""``html_page``: the report as one page that needs nothing else, neither network nor scripts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgekit.report.accelerators import Hints, LeftOp
from edgekit.report.findings import Finding
from edgekit.report.html.bars import device_bars, layer_bars, op_bars, share_stack
from edgekit.report.html.elements import Child, Markup, el, join, number
from edgekit.report.html.plots import memory_plot, roofline_plot
from edgekit.report.html.style import CSS
from edgekit.report.placed import PlacementReport
from edgekit.report.profile import ProfileReport

__all__ = ["html_page"]

#: nothing is loaded from anywhere, even if something in a model got past the escaping
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
_LEVELS = {"bad": "Problem", "warning": "Warning", "note": "Note", "good": "Good"}
_MOST_ROWS = 200


def html_page(report: ProfileReport) -> str:
    """The whole document. Everything from the model is escaped."""
    from edgekit import __version__

    prediction = report.prediction
    title = f"{report.subject} on {report.device}"
    head = el(
        "head", el("meta", charset="utf-8"), el("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("link", rel="icon", href="data:,"), el("title", title), el("style", Markup(CSS)),
    )
    plots = [_roofline(report), _memory(report)]
    body = el("body", el(
        "main", el("h1", title),
        el("p", f"Predicted with the profile {prediction.device} ({prediction.confidence}); not measured.",
           class_="soft"),
        _tiles(report), _findings(report.findings), _time(report), *plots, _placement(report), _layers(report),
        _devices(report), _all_ops(report),
        el("footer", f"EdgeKit {__version__}. {report.subject}: {report.size_bytes:,} bytes, sha256 {report.sha256}"),
    ))
    return f"<!doctype html>\n{el('html', head, body, lang='en')}\n"


def _tiles(report: ProfileReport) -> Markup:
    prediction = report.prediction
    low, high = prediction.band_ms
    peak = report.peak_activation_bytes
    found = None if report.placement is None else report.placement.xnnpack
    facts = [
        (number(prediction.latency_ms, "ms"), f"90 % band {number(low)} to {number(high, 'ms')}"),
        (f"{prediction.covered:.0%}", "of the time as in "
         f"{prediction.nearest}, {'inside' if prediction.inside_domain else 'OUTSIDE'} the calibrated domain"),
        (number(prediction.macs / 1e6, "M"), "multiply-adds"),
        (number(report.weight_bytes / 1e6, "MB"), f"weights, {number(report.parameters / 1e6, 'M')} parameters"),
        ("unknown" if peak is None else number(peak / 1e6, "MB"), "activations at most"),
        ("unknown" if found is None else str(found.partitions), "XNNPACK partitions (1 is best)"),
    ]
    return el("div", *(el("div", el("b", value), el("span", name), class_="tile") for value, name in facts),
              class_="tiles")


def _section(name: str, title: str, intro: str, *children: Child) -> Markup:
    return el("section", el("h2", title), el("p", intro, class_="soft") if intro else None, *children, id=name)


def _findings(findings: Sequence[Finding]) -> Markup:
    cards = [
        el("div", el("b", el("span", _LEVELS[each.level], class_="level"), each.title), el("p", each.detail),
           el("p", each.remedy, class_="remedy") if each.remedy else None, class_=f"finding {each.level}")
        for each in findings
    ]
    return _section("findings", "What to change", "" if cards else "Nothing was found.", *cards)


def _time(report: ProfileReport) -> Markup:
    return _section("ops", "Where the time goes", "Predicted for each op; the slowest first.", share_stack(report),
                    op_bars(report))


def _roofline(report: ProfileReport) -> Markup | None:
    if not report.roofline:
        return None
    return _section("roofline", "Speed against the roof",
                    "Ops on the slanted part wait for memory: fuse them, or move less. Ops under the flat part compute "
                    "slower than this device can: more channels, other shapes. The size of a dot is its time. The roof "
                    "is what the profile says of a large 1x1 convolution and of an addition in memory; a dot above "
                    "it is an op that the fit believes to be cheaper than those: trust it less.",
                    roofline_plot(report.roofline, report.roof))


def _memory(report: ProfileReport) -> Markup | None:
    if not report.live_bytes or report.peak_activation_bytes is None:
        return None
    names = [op.name for op in report.prediction.ops[:len(report.live_bytes)]]
    return _section("memory", "Memory over time",
                    "Activations in use while each op runs; weights come on top. The arena is planned as LiteRT plans.",
                    memory_plot(report.live_bytes, report.peak_activation_bytes, names))


def _placement(report: ProfileReport) -> Markup:
    placement = report.placement
    if placement is None:
        return _section("placement", "Where the ops run", f"Not found: {report.placement_note}")
    hints = [_hints(each) for each in placement.hints]
    return _section("placement", "Where the ops run", "", *_xnnpack(placement), *hints)


def _xnnpack(placement: PlacementReport) -> Iterable[Markup]:
    found = placement.xnnpack
    if found is None:
        yield el("p", "XNNPACK's verdict needs a .tflite file: edgekit convert --to litert --report.")
        return
    yield el("p", el("b", f"XNNPACK takes {found.taken} of {found.ops} ops in {found.partitions} piece(s)"),
             ", found by having the engine prepare the file.")
    if found.left:
        yield _left(found.left)


def _hints(hints: Hints) -> Markup:
    head = el("p", el("b", f"{hints.title}: {hints.taken} of {hints.ops} ops in {hints.partitions} piece(s)"),
              f", by documented rules and not by compilation ({hints.source}).")
    notes = [el("p", note, class_="soft") for note in hints.notes]
    return join([head, *notes, _left(hints.left) if hints.left else None])


def _left(ops: Sequence[LeftOp]) -> Markup:
    rows = [(each.op, each.kind, each.reason) for each in ops[:_MOST_ROWS]]
    return el("details", el("summary", f"The {len(ops)} op(s) left out, and why"),
              _table(("op", "kind", "why"), rows), open="" if len(ops) <= 5 else None)


def _layers(report: ProfileReport) -> Markup | None:
    if not report.layers:
        if report.precision != "quantized":
            return None
        return _section("layers", "What quantization costs", "Give the float file to see it by layer: --against M.onnx")
    last = report.layers[-1]
    return _section("layers", "What quantization costs",
                    f"Against {report.reference or 'the float file'}, on random inputs: {last.sqnr_db:.1f} dB of "
                    f"signal over noise at '{last.tensor}', the last layer. The bars show by how much the sum of all "
                    "noise would fall if a layer added none; pink ones have channels that stretch the others' range.",
                    layer_bars(report.layers))


def _devices(report: ProfileReport) -> Markup | None:
    if not report.devices:
        return None
    return _section("devices", "On other devices",
                    f"Every calibrated profile (one thread), {len(report.devices)} of them, on a logarithmic scale: "
                    "the dot is the prediction, the stripe its 90 % band. Hollow: outside the calibrated domain.",
                    device_bars(report.devices, report.prediction.device))


def _all_ops(report: ProfileReport) -> Markup:
    live = report.live_bytes or ()
    rows = [
        (str(index), op.name, op.kind, f"{op.latency_ms:.3f}", f"{op.share:.1%}",
         f"{live[index] / 1e6:.3f}" if index < len(live) else "", "" if op.known else "unknown op")
        for index, op in enumerate(report.prediction.ops)
    ]
    heads = (">#", "op", "kind", ">ms", ">share", ">MB in use", "")
    shown = f"All {len(rows)} ops" if len(rows) <= 10 * _MOST_ROWS else f"The first {10 * _MOST_ROWS} ops"
    return _section("all", "Op by op", "", el("details", el("summary", shown), _table(heads, rows[:10 * _MOST_ROWS])))


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    """Columns whose head starts with ">" hold numbers."""
    numeric = [head.startswith(">") for head in heads]
    top = el("tr", *(el("th", head.lstrip(">"), class_="n" if right else None)
                     for head, right in zip(heads, numeric, strict=True)))
    lines = [el("tr", *(el("td", cell, class_="n" if right else "long")
                        for cell, right in zip(row, numeric, strict=True))) for row in rows]
    return el("div", el("table", top, *lines), class_="wide")
