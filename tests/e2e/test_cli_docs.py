"""docs/cli.md has every object that --json can print, field by field, and every verb."""

from __future__ import annotations

import re
import types
import typing
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

from edgekit.bundle.manifest import Manifest
from edgekit.cli.bench import bench
from edgekit.cli.build import Build
from edgekit.cli.compress import Compress
from edgekit.cli.convert import Convert
from edgekit.cli.delta import Delta
from edgekit.cli.doctor import Doctor
from edgekit.cli.export import Export
from edgekit.cli.frame import ErrorReport
from edgekit.cli.inspect import Inspect
from edgekit.cli.keygen import Keygen
from edgekit.cli.plan import PlanReport
from edgekit.cli.quantize import Quantize
from edgekit.cli.root import VERBS
from edgekit.cli.run import Run
from edgekit.cli.sign import Sign
from edgekit.cli.train import Train
from edgekit.cli.verify import Verify
from edgekit.cli.zoo import Zoo
from edgekit.demo import DemoResult
from edgekit.measure import BenchReport
from edgekit.measure_ops import PerOpReport
from edgekit.profile.predict import LatencyPrediction

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
RESULTS = (
    ErrorReport, Compress, Export, Convert, Quantize, Build, PlanReport, Verify, Inspect, Run, BenchReport, PerOpReport,
    LatencyPrediction, DemoResult, Keygen, Sign, Delta, Doctor, Zoo, Train,
)
ELSEWHERE = {Manifest}  # runtimes/SPEC.md


def structs(kind: Any, found: dict[str, type[msgspec.Struct]]) -> dict[str, type[msgspec.Struct]]:
    """``kind`` and every struct that a field of it can hold, by name."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and not typing.get_origin(kind):
        if kind not in ELSEWHERE and kind.__name__ not in found:
            found[kind.__name__] = kind
            for hint in typing.get_type_hints(kind).values():
                structs(hint, found)
    else:
        for part in typing.get_args(kind):
            if not isinstance(part, str | types.EllipsisType):
                structs(part, found)
    return found


STRUCTS: dict[str, type[msgspec.Struct]] = {}
for result in RESULTS:
    structs(result, STRUCTS)


def sections() -> dict[str, str]:
    parts = re.split(r"^### (\w+)$", TEXT, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_page_has_exactly_the_objects_that_can_be_printed() -> None:
    assert len(STRUCTS) > 20
    assert sorted(sections()) == sorted(STRUCTS)


@pytest.mark.parametrize("name", sorted(STRUCTS))
def test_the_fields_are_those_of_the_type(name: str) -> None:
    documented = re.findall(r"^\| `(\w+)` \|", sections()[name], re.MULTILINE)
    assert documented == list(STRUCTS[name].__struct_encode_fields__)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_in_the_list_and_takes_json_and_debug(verb: str) -> None:
    assert re.search(rf"^edgekit {verb}\b", TEXT, re.MULTILINE)
    module = __import__(f"edgekit.cli.{verb}", fromlist=[verb])
    command = getattr(module, verb)
    assert isinstance(command, click.Command)
    assert [parameter.name for parameter in command.params[-2:]] == ["json", "debug"]
    assert command.help


def test_reading_verbs_take_a_public_key() -> None:
    for verb in ("inspect", "verify", "run", "bench"):
        command = bench if verb == "bench" else getattr(__import__(f"edgekit.cli.{verb}", fromlist=[verb]), verb)
        assert {"public_key", "require_signature"} <= {parameter.name for parameter in command.params}
