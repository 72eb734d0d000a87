"""Every bundle of runtimes/conformance that must be refused is, with the error that hostile.json says."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edgekit import errors
from edgekit.bundle import Bundle
from edgekit.errors import BadBundle

EXPECTED: list[dict[str, Any]] = json.loads(
    (Path(__file__).resolve().parents[2] / "runtimes" / "conformance" / "hostile.json").read_text())


@pytest.fixture(scope="module")
def made(hostile: ModuleType) -> dict[str, bytes]:
    return {case.name: case.data for case in hostile.cases()}


def test_the_list_is_that_of_the_generator(made: dict[str, bytes]) -> None:
    assert list(made) == [each["name"] for each in EXPECTED]
    assert len(EXPECTED) > 150


def test_without_a_quirk_the_generator_makes_a_good_bundle(hostile: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "m.edge").write_bytes(hostile.build(hostile.golden()))
    with Bundle.open(tmp_path / "m.edge") as bundle:
        bundle.verify_all()


@pytest.mark.parametrize("expected", EXPECTED, ids=[each["name"] for each in EXPECTED])
def test_it_is_refused(expected: dict[str, Any], made: dict[str, bytes], conformance: Path, tmp_path: Path) -> None:
    data = made[expected["name"]]
    assert hashlib.sha256(data).hexdigest() == expected["sha256"], "write hostile.json anew: python hostile.py"
    path = tmp_path / "m.edge"
    path.write_bytes(data)
    key = conformance / "test_key.pub" if expected["key"] else None
    if expected["when"] == "read":
        with Bundle.open(path, public_key=key) as bundle, pytest.raises(BadBundle) as caught:
            bundle.verify_all()
    else:
        with pytest.raises(BadBundle) as caught:
            Bundle.open(path, public_key=key)
    assert type(caught.value) is getattr(errors, expected["error"])
    assert str(path) in caught.value.message
    assert caught.value.remedy
    assert len(str(caught.value)) < 1500
