"""The report page: what is in it, that nothing in a model can break out of it, and how a real browser shows it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import onnx
import pytest

from edgekit.device_profiles import resolve
from edgekit.errors import BadRecipe
from edgekit.pipeline import build, convert
from edgekit.profile.predict import LatencyPrediction, OpLatency, predict
from edgekit.report.html import html_page
from edgekit.report.html.elements import el, number, text
from edgekit.report.layers import LayerNoise, layer_noise
from edgekit.report.profile import ProfileReport, profile_report
from tests.browser import Browser, open_browser
from tests.conftest import Cli

EVIL = "</title><script>document.title='pwned'</script><img src=http://127.0.0.1:9/x onerror=alert(1)>\"'&\u202e\x07"
SECTIONS = ("findings", "ops", "roofline", "memory", "placement", "layers", "devices", "all")


class Tags(HTMLParser):
    """The tags of a page; complains about any that is not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "action")]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def report(small_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> ProfileReport:
    """Of a converted model whose names are hostile, with a comparison by layer."""
    folder = tmp_path_factory.mktemp("report")
    proto = onnx.load(small_onnx)
    for node in proto.graph.node:
        node.name = f"{node.name}{EVIL}"
        node.output[:] = [name if name == "scores" else f"{name}{EVIL}" for name in node.output]
        node.input[:] = [f"{name}{EVIL}" if name in ("c0", "r0", "p0", "f0") else name for name in node.input]
    onnx.save(proto, folder / "evil.onnx")
    convert(folder / "evil.onnx", "litert", folder / "evil.tflite")
    layers = [LayerNoise(f"layer {index}{EVIL}", "CONV_2D", 30.0 - 3 * index, 0.2 + index, index % 2)
              for index in range(8)]
    return profile_report(folder / "evil.tflite", resolve("raspberry-pi-4"), layers=layers, subject=EVIL)


def test_the_page_is_well_formed_and_asks_for_nothing(report: ProfileReport) -> None:
    page = html_page(report)
    tags = Tags()
    tags.feed(page)
    tags.close()
    assert not tags.open
    assert not {"script", "img", "iframe", "object", "base", "form"} & set(tags.seen)
    assert tags.links == ["data:,"]
    assert "default-src &#x27;none&#x27;" in page
    assert "<script" not in page
    assert not re.search("[\u202e\x07]", page)
    assert page.count('role="img"') == 2
    for name in SECTIONS:
        assert f'id="{name}"' in page


def test_the_report_holds_what_the_page_shows(report: ProfileReport) -> None:
    assert report.placement is not None
    assert report.placement.xnnpack is not None
    assert report.placement.xnnpack.partitions == 1
    assert report.live_bytes is not None
    assert report.peak_activation_bytes is not None
    assert max(report.live_bytes) <= report.peak_activation_bytes
    assert len(report.live_bytes) == len(report.prediction.ops) == len(report.classes)
    assert [row.latency_ms for row in report.devices] == sorted(row.latency_ms for row in report.devices)
    assert len(report.devices) >= 30
    (here,) = [row for row in report.devices if row.profile == report.prediction.device]
    assert here.latency_ms == pytest.approx(report.prediction.latency_ms)
    assert all(row.low_ms < row.latency_ms < row.high_ms for row in report.devices)
    assert {point.op_class for point in report.roofline} == {"conv", "fc"}
    assert 1 < report.roof.gmacs_per_s < 20  # a Cortex-A72 at 1.5 GHz: 4 lanes, 2 multiply-adds in flight
    titles = [finding.title for finding in report.findings]
    assert any("XNNPACK takes the whole graph" in title for title in titles)
    assert any("dB of signal over noise" in title for title in titles)
    assert all(finding.remedy for finding in report.findings if finding.level != "good")
    assert json.loads(msgspec.json.encode(report))["subject"] == EVIL


def test_a_prediction_that_adds_the_overhead_of_a_run(small_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Profiles of a machine's own kernels name one op more than the graph has."""
    from edgekit.report import profile as module

    def with_overhead(*arguments: object) -> LatencyPrediction:
        found = predict(*arguments)  # type: ignore[arg-type]
        return msgspec.structs.replace(found, ops=(*found.ops, OpLatency("(each run)", "RUN", 0.1, 0.1, True)))

    monkeypatch.setattr(module, "predict", with_overhead)
    found = profile_report(small_onnx, resolve("raspberry-pi-4"))
    assert len(found.classes) == len(found.prediction.ops)
    assert "(each run)" in html_page(found)


def test_escaping() -> None:
    assert text("<a href='x'>&\"") == "&lt;a href=&#x27;x&#x27;&gt;&amp;&quot;"
    assert el("p", "<b>", el("i", "1"), None, title='"') == '<p title="&quot;">&lt;b&gt;<i>1</i></p>'
    assert el("p", "\x00\ud800") == "<p>\ufffd\ufffd</p>"
    assert [number(value) for value in (0, 0.0123, 1.234, 12.34, 123.4, 12345.6)] == [
        "0.00", "0.0123", "1.23", "12.3", "123", "12,346"]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with open_browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.mark.parametrize(("width", "dark"), [(1100, False), (1100, True), (390, False)])
def test_a_real_browser_shows_it(
    browser: Browser, report: ProfileReport, tmp_path: Path, width: int, dark: bool
) -> None:
    file = tmp_path / "report.html"
    file.write_text(html_page(report), encoding="utf-8")
    page = browser.open(file.as_uri(), width, dark)
    assert page.requests == [file.as_uri()]
    assert page.complaints == []
    assert page.evaluate("document.title").startswith("</title><script>")
    sizes = page.evaluate(
        "[...document.querySelectorAll('section, svg, .tile, .finding, .bar, .track, .stack')]"
        ".map(e => e.getBoundingClientRect()).map(r => [r.width, r.height])")
    assert len(sizes) > 60
    assert all(wide > 0 and high > 0 for wide, high in sizes)
    assert page.evaluate("[...document.querySelectorAll('section')].map(e => e.id)") == list(SECTIONS)
    assert page.evaluate("document.querySelectorAll('svg circle').length") == len(report.roofline)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ink, paper = (_brightness(page.evaluate(f"getComputedStyle(document.body).{name}"))
                  for name in ("color", "backgroundColor"))
    assert (ink > paper) == dark
    assert abs(ink - paper) > 150
    page.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 20_000


def _brightness(colour: str) -> float:
    red, green, blue, *_ = (float(part) for part in re.findall(r"[\d.]+", colour))
    return 0.3 * red + 0.6 * green + 0.1 * blue


def test_layers_are_compared_with_the_float_file(small_onnx: Path, tmp_path: Path) -> None:
    fixed = onnx.load(small_onnx)
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(fixed, tmp_path / "f.onnx")
    convert(tmp_path / "f.onnx", "litert", tmp_path / "f.tflite")
    same = layer_noise(tmp_path / "f.tflite", tmp_path / "f.onnx")
    assert {layer.kind for layer in same} >= {"CONV_2D", "FULLY_CONNECTED"}
    assert all(layer.sqnr_db > 60 for layer in same)
    with pytest.raises(BadRecipe, match="by layer"):
        layer_noise(tmp_path / "f.onnx", tmp_path / "f.onnx")


def test_the_command_writes_the_page_for_every_kind_of_file(cli: Cli, small_onnx: Path, tmp_path: Path) -> None:
    build(small_onnx, tmp_path / "m.edge")
    for file in (small_onnx, tmp_path / "m.edge"):
        done = cli("profile", file, "--device", "raspberry-pi-4", "--html", "r.html", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["latency_ms"] > 0
        page = (tmp_path / "r.html").read_text(encoding="utf-8")
        assert file.name in page
        assert "Raspberry Pi 4" in page
    assert "litert" in page  # which variant it is about
    done = cli("profile", small_onnx, "--device", "raspberry-pi-4", "--html", small_onnx)
    assert (done.returncode, small_onnx.stat().st_size > 100) == (1, True)
    done = cli("profile", small_onnx, "--device", "raspberry-pi-4", "--against", small_onnx)
    assert done.returncode == 1
    assert "--html" in done.stderr
