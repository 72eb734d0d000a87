"""The command line on an adaptive bundle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from edgekit.bundle import Bundle, write_bundle
from edgekit.cli.root import main

CONFORMANCE = Path(__file__).resolve().parents[2] / "runtimes" / "conformance"
GOLDEN = CONFORMANCE / "golden_adaptive.edge"


Edgekit = Callable[..., str]


@pytest.fixture
def edgekit(capfd: pytest.CaptureFixture[str]) -> Edgekit:
    """Runs the command line in this process and returns what it prints."""

    def run(*arguments: str | Path, code: int = 0) -> str:
        with pytest.raises(SystemExit) as end:
            main([str(each) for each in arguments])
        out, err = capfd.readouterr()
        assert end.value.code == code, err
        return out

    return run


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A grey image as an array file, which needs no decoder."""
    np.save(tmp_path / "image.npy", np.full((4, 4, 3), 128, np.uint8))
    return tmp_path / "image.npy"


def test_inspect(edgekit: Edgekit) -> None:
    bundle = json.loads(edgekit("inspect", GOLDEN, "--json"))["bundle"]
    assert [each["id"] for each in bundle["ladders"]] == ["litert-2", "litert-4", "ort-2", "ort-4"]
    assert bundle["ladders"][1]["resolution"] == [4, 4]
    assert (bundle["plan"]["default"], bundle["plan"]["points"]) == (1, [["litert-2", 0], ["litert-2", 1]])
    text = edgekit("inspect", GOLDEN)
    assert "litert-2 to stage 0, then litert-2 to stage 1" in text


def test_verify_runs_every_ladder_through_its_stages(edgekit: Edgekit) -> None:
    result = json.loads(edgekit("verify", GOLDEN, "--public-key", CONFORMANCE / "test_key.pub", "--json"))
    assert result["passed"]
    assert [[each["name"] for each in report["outputs"]] for report in result["reports"]] == [["exit0", "exit1"]] * 4


def test_verify_finds_a_stage_that_computes_something_else(edgekit: Edgekit, tmp_path: Path) -> None:
    with Bundle.open(GOLDEN) as bundle:
        manifest, plan = bundle.manifest, bundle.plan()
        blobs = {entry.name: bundle.read(entry.name) for entry in manifest.entries if entry.name != "plan.json"}
    assert plan is not None
    weights = np.frombuffer(blobs["models/ort.bin"], np.float32).copy()
    weights[-1] += 0.5  # the last bias of the second stage
    blobs["models/ort.bin"] = weights.tobytes()
    write_bundle(tmp_path / "m.edge", replace(manifest, plan_entry=None), blobs)
    report = json.loads(edgekit("verify", tmp_path / "m.edge", "--json", code=1))
    failed = [(each["subject"].split("'")[1], output["name"]) for each in report["reports"]
              for output in each["outputs"] if not output["passed"]]
    assert failed == [("ort-2", "exit1"), ("ort-4", "exit1")]


def test_run(edgekit: Edgekit, image: Path) -> None:
    result = json.loads(edgekit("run", GOLDEN, image, "--json"))
    assert (result["label"], result["reason"], result["route"]) == ("dark", "last", 1)
    assert [(step["ladder"], step["stage"]) for step in result["steps"]] == [("litert-2", 0), ("litert-2", 1)]
    assert result["variant"] == "litert-2"
    text = edgekit("run", GOLDEN, image)
    assert "route 1: litert-2 to stage 0" in text


def test_run_with_a_plan_of_its_own(edgekit: Edgekit, image: Path) -> None:
    plan = CONFORMANCE / "golden_adaptive_ort.edgeplan"
    assert json.loads(edgekit("run", GOLDEN, image, "--plan", plan, "--json"))["engine"] == "ort"
    assert "has no ladders" in edgekit("run", CONFORMANCE / "golden.edge", image, "--plan", plan, "--json", code=1)


def test_bench_times_the_whole_network(edgekit: Edgekit) -> None:
    report = json.loads(edgekit("bench", GOLDEN, "--engine", "ort", "--runs", "10", "--json"))
    assert (report["results"][0]["engine"], report["results"][0]["inputs"][0]["shape"]) == ("ort", [1, 1, 4, 4])
