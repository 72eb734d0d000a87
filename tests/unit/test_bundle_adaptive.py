"""Ladders and plans in bundles, and plans in files of their own."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from edgekit.bundle import (
    Bundle,
    Ladder,
    Manifest,
    Plan,
    decode_plan,
    encode_plan,
    generate_key_pair,
    ladders_of,
    ladders_sha256,
    load_private_key,
    read_plan,
    sign_bundle,
    write_bundle,
    write_plan,
)
from edgekit.bundle.decode import decode_manifest, encode_manifest
from edgekit.errors import BadBundle, BadKey, SignatureMismatch

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from tests.unit.conftest import Sample

replace = msgspec.structs.replace


@pytest.fixture
def parts(conformance: Path) -> tuple[Manifest, dict[str, bytes]]:
    """The golden adaptive bundle, taken apart."""
    with Bundle.open(conformance / "golden_adaptive.edge") as bundle:
        return bundle.manifest, {entry.name: bundle.read(entry.name) for entry in bundle.manifest.entries}


@pytest.fixture
def plan(conformance: Path) -> Plan:
    with Bundle.open(conformance / "golden_adaptive.edge") as bundle:
        found = bundle.plan()
    assert found is not None
    return found


def test_the_golden_adaptive_bundle(conformance: Path) -> None:
    expected = json.loads((conformance / "golden_adaptive.json").read_text(encoding="ascii"))
    with Bundle.open(conformance / "golden_adaptive.edge", public_key=conformance / "test_key.pub") as bundle:
        bundle.verify_all()
        manifest, plan = bundle.manifest, bundle.plan()
    assert [ladder.id for ladder in manifest.ladders] == expected["ladders"]
    assert manifest.schema_version == 2
    assert plan is not None
    assert plan.default == expected["default"]
    assert {engine: ladders_sha256(manifest, engine) for engine in ("litert", "ort")} == expected["ladders_sha256"]


def test_a_bundle_without_ladders_keeps_the_bytes_of_version_1(conformance: Path) -> None:
    with Bundle.open(conformance / "golden.edge") as bundle:
        assert bundle.manifest.schema_version == 1
        assert (bundle.manifest.ladders, bundle.manifest.plan_entry, bundle.plan()) == ((), None, None)
        assert encode_manifest(bundle.manifest) == bundle.manifest_bytes
        assert b"ladders" not in bundle.manifest_bytes


def test_the_version_follows_from_the_content(sample: Sample, parts: tuple[Manifest, dict[str, bytes]],
                                              tmp_path: Path) -> None:
    plain = write_bundle(tmp_path / "m.edge", replace(sample.manifest, schema_version=2), sample.blobs)
    assert plain.schema_version == 1
    manifest = write_bundle(tmp_path / "a.edge", replace(parts[0], schema_version=1), parts[1])
    assert manifest == parts[0]
    assert decode_manifest(encode_manifest(manifest)) == manifest


def test_writing_twice_gives_the_same_bytes(parts: tuple[Manifest, dict[str, bytes]], conformance: Path,
                                            hostile: ModuleType, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    write_bundle(tmp_path / "a.edge", *parts, Ed25519PrivateKey.from_private_bytes(hostile.TEST_SEED))
    assert (tmp_path / "a.edge").read_bytes() == (conformance / "golden_adaptive.edge").read_bytes()


def test_ladders_beside_variants(sample: Sample, parts: tuple[Manifest, dict[str, bytes]], tmp_path: Path) -> None:
    manifest = replace(sample.manifest, ladders=parts[0].ladders)
    write_bundle(tmp_path / "m.edge", manifest, sample.blobs | parts[1])
    with Bundle.open(tmp_path / "m.edge") as bundle:
        assert len(bundle.manifest.variants) == 1
        assert bundle.manifest.ladders == parts[0].ladders
        assert bundle.plan() is None


def test_a_writer_refuses_a_plan_for_other_ladders(parts: tuple[Manifest, dict[str, bytes]], tmp_path: Path) -> None:
    manifest, blobs = parts
    with pytest.raises(BadBundle, match="not made for the ladders"):
        write_bundle(tmp_path / "m.edge", manifest, blobs | {"models/litert.tflite": b"another"})
    assert not (tmp_path / "m.edge").exists()


def test_the_hash_of_the_ladders_is_that_of_what_they_compute(parts: tuple[Manifest, dict[str, bytes]]) -> None:
    manifest, _ = parts

    def changed(**changes: Any) -> Manifest:
        first: Ladder = replace(manifest.ladders[0], **changes)
        return replace(manifest, ladders=(first, *manifest.ladders[1:]))

    same = ladders_sha256(manifest, "litert")
    assert ladders_sha256(replace(manifest, name="other", plan_entry=None), "litert") == same
    assert ladders_sha256(changed(test_vectors=()), "litert") == same
    entries = tuple(replace(entry, sha256="1" * 64) if entry.name == "models/litert.tflite" else entry
                    for entry in manifest.entries)
    stages = manifest.ladders[0].stages
    renamed = (replace(stages[0], signature="other"), stages[1])
    for other in (changed(id="other"), changed(resolution=(2, 3)), changed(precision="int8"),
                  changed(stages=stages[:1]), changed(stages=renamed), replace(manifest, entries=entries)):
        assert ladders_sha256(other, "litert") != same
        assert ladders_sha256(other, "ort") == ladders_sha256(manifest, "ort")
    weights = tuple(replace(entry, sha256="1" * 64) if entry.name == "models/ort.bin" else entry
                    for entry in manifest.entries)
    assert ladders_sha256(replace(manifest, entries=weights), "ort") != ladders_sha256(manifest, "ort")


def test_plans_round_trip(parts: tuple[Manifest, dict[str, bytes]], plan: Plan) -> None:
    assert encode_plan(plan) == parts[1]["plan.json"]
    assert decode_plan(encode_plan(plan), parts[0]) == plan


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_does_not_have_are_not_written(plan: Plan, value: float) -> None:
    route = plan.routes[1]
    step = replace(route.steps[0], threshold=value)
    with pytest.raises(BadBundle, match="route 1 holds a number that is not finite"):
        encode_plan(replace(plan, routes=(plan.routes[0], replace(route, steps=(step, *route.steps[1:])))))
    with pytest.raises(BadBundle, match="time of a stage"):
        encode_plan(replace(plan, stage_ms=((value, 1.0), (1.0, 1.0))))


def test_a_plan_that_is_too_large_is_not_written(plan: Plan) -> None:
    with pytest.raises(BadBundle, match="at most 1048576"):
        encode_plan(replace(plan, notes=("x" * 1000,) * 1100))


def test_signing_again_keeps_the_plan(conformance: Path, tmp_path: Path, test_key: Ed25519PrivateKey) -> None:
    sign_bundle(conformance / "golden_adaptive.edge", tmp_path / "m.edge", test_key)
    with Bundle.open(tmp_path / "m.edge", public_key=test_key.public_key()) as bundle:
        assert bundle.plan() is not None


# Plans in files of their own


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    generate_key_pair(tmp_path / "private.pem", tmp_path / "public.pem")
    return tmp_path / "private.pem", tmp_path / "public.pem"


def test_a_signed_plan_file(parts: tuple[Manifest, dict[str, bytes]], plan: Plan, keys: tuple[Path, Path],
                            tmp_path: Path) -> None:
    path = tmp_path / "m.edgeplan"
    write_plan(path, plan, parts[0], load_private_key(keys[0]))
    for key in (keys[1], keys[1].read_bytes(), None):
        assert read_plan(path, parts[0], public_key=key) == plan
    assert read_plan(path, parts[0], public_key=keys[1], require_signature=True) == plan
    with pytest.raises(BadKey, match="no public key"):
        read_plan(path, parts[0], require_signature=True)
    generate_key_pair(tmp_path / "other.pem", tmp_path / "other.pub")
    with pytest.raises(SignatureMismatch, match=r"m\.edgeplan.*does not fit"):
        read_plan(path, parts[0], public_key=tmp_path / "other.pub")
    path.write_bytes(path.read_bytes().replace(b'"default":1', b'"default":0'))
    with pytest.raises(SignatureMismatch, match="does not fit"):
        read_plan(path, parts[0], public_key=keys[1])
    assert read_plan(path, parts[0]).default == 0


def test_an_unsigned_plan_file_is_refused_where_a_key_is_given(
        parts: tuple[Manifest, dict[str, bytes]], plan: Plan, keys: tuple[Path, Path], tmp_path: Path) -> None:
    write_plan(tmp_path / "m.edgeplan", plan, parts[0])
    assert read_plan(tmp_path / "m.edgeplan", parts[0]) == plan
    with pytest.raises(SignatureMismatch, match="not signed"):
        read_plan(tmp_path / "m.edgeplan", parts[0], public_key=keys[1])


def test_the_signature_of_a_bundle_is_none_of_a_plan(
        parts: tuple[Manifest, dict[str, bytes]], plan: Plan, hostile: ModuleType, conformance: Path,
        tmp_path: Path) -> None:
    data = encode_plan(plan)
    signature = hostile.sign(hostile.SIGNATURE_DOMAIN + data)
    (tmp_path / "m.edgeplan").write_bytes(b"edgeplan 1 " + signature.hex().encode() + b"\n" + data)
    with pytest.raises(SignatureMismatch):
        read_plan(tmp_path / "m.edgeplan", parts[0], public_key=conformance / "test_key.pub")


@pytest.mark.parametrize("data", [b"", b"edgeplan 2 unsigned\n{}", b"edgeplan 1 unsigned", b"edgeplan 1 00\n{}",
                                  b"edgeplan 1 unsigned\n{", b"edgeplan 1 unsigned\n" + b" " * 1_100_000])
def test_damaged_plan_files(parts: tuple[Manifest, dict[str, bytes]], tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m.edgeplan").write_bytes(data)
    with pytest.raises(BadBundle, match=r"m\.edgeplan' cannot be used as a plan") as caught:
        read_plan(tmp_path / "m.edgeplan", parts[0])
    assert caught.value.remedy


def test_plan_files_that_are_not_there(parts: tuple[Manifest, dict[str, bytes]], plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(BadBundle, match="cannot be read"):
        read_plan(tmp_path / "none.edgeplan", parts[0])
    with pytest.raises(BadBundle, match="not a regular file"):
        read_plan(tmp_path, parts[0])
    other = replace(parts[0], ladders=ladders_of(parts[0], "ort"), plan_entry=None)
    with pytest.raises(BadBundle, match="of which bundle"):
        write_plan(tmp_path / "m.edgeplan", plan, other)
    assert not (tmp_path / "m.edgeplan").exists()
