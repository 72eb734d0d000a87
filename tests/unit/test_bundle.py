"""Reading: what a good bundle gives, what opening costs, schema versions, signatures."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from edgekit import bundle as api
from edgekit.bundle import (
    Bundle,
    Manifest,
    check,
    container,
    decode,
    load_public_key,
    manifest,
    read,
    sign,
    sign_bundle,
    write,
    write_bundle,
)
from edgekit.errors import BadBundle, BadKey, SchemaTooNew, SignatureMismatch, UnknownName

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from tests.unit.conftest import Sample


@pytest.fixture
def path(sample: Sample, tmp_path: Path) -> Path:
    write_bundle(tmp_path / "m.edge", sample.manifest, sample.blobs)
    return tmp_path / "m.edge"


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    api.generate_key_pair(tmp_path / "private.pem", tmp_path / "public.pem")
    return tmp_path / "private.pem", tmp_path / "public.pem"


def test_what_is_written_is_read(sample: Sample, path: Path) -> None:
    with Bundle.open(path) as bundle:
        assert msgspec.structs.replace(bundle.manifest, entries=()) == sample.manifest
        assert {name: bundle.read(name) for name in sample.blobs} == sample.blobs
        assert {name: bytes(bundle.map(name)) for name in sample.blobs} == sample.blobs
        assert (bundle.signed, bundle.signature_checked) == (False, False)
        bundle.verify_all()


def test_every_module_exports_what_it_says() -> None:
    for module in (api, check, container, decode, manifest, read, sign, write):
        assert all(hasattr(module, name) for name in module.__all__)
    assert set(manifest.__all__) <= set(api.__all__)


def test_other_zip_tools_read_it_and_every_entry_is_aligned(path: Path, sample: Sample) -> None:
    with zipfile.ZipFile(path) as file:
        assert file.testzip() is None
        assert file.namelist() == ["manifest.json", *sorted(sample.blobs)]
        assert all(info.compress_type == zipfile.ZIP_STORED for info in file.infolist())
        assert file.read("models/a.tflite") == sample.blobs["models/a.tflite"]
    raw = path.read_bytes()
    with Bundle.open(path) as bundle:
        for name, blob in sample.blobs.items():
            offset, size = bundle.span(name)
            assert offset % 16384 == 0
            assert raw[offset:offset + size] == blob


def test_unzip_reads_it(path: Path) -> None:
    try:
        done = subprocess.run(["unzip", "-t", path], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("needs the program unzip")
    assert done.returncode == 0, done.stdout + done.stderr


def test_opening_reads_no_entry(path: Path, sample: Sample) -> None:
    with Bundle.open(path) as bundle:
        offset, _ = bundle.span("models/a.tflite")
    raw = bytearray(path.read_bytes())
    raw[offset] ^= 1
    path.write_bytes(raw)
    with Bundle.open(path) as bundle:
        assert bundle.read("vectors/0/x.bin") == sample.blobs["vectors/0/x.bin"]
        for use in (bundle.read, bundle.map):
            with pytest.raises(BadBundle, match=r"models/a\.tflite"):
                use("models/a.tflite")
        with pytest.raises(BadBundle, match=r"models/a\.tflite"):
            bundle.verify_all()


def test_opening_20_megabytes_takes_under_2_ms_and_no_cryptography(sample: Sample, tmp_path: Path) -> None:
    blobs = {**sample.blobs, "models/a.tflite": os.urandom(20_000_000)}
    write_bundle(tmp_path / "m.edge", sample.manifest, blobs)
    code = ("import sys, time; from edgekit.bundle import Bundle\n"
            "def opened():\n"
            "    begin = time.thread_time(); Bundle.open(sys.argv[1]).close(); return time.thread_time() - begin\n"
            "first = opened()\n"
            "print(first * 1e3, min(opened() for _ in range(20)) * 1e3, 'cryptography' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "m.edge"], capture_output=True, text=True, check=True)
    first_ms, best_ms, loaded = done.stdout.split()
    assert float(best_ms) < 2, f"CPU time; the first time took {first_ms} ms"
    assert loaded == "False"


def test_a_map_outlives_the_bundle_and_is_read_only(path: Path, sample: Sample) -> None:
    bundle = Bundle.open(path)
    view = bundle.map("models/a.tflite")
    bundle.close()
    bundle.close()
    assert bytes(view) == sample.blobs["models/a.tflite"]
    assert view.readonly
    with pytest.raises(BadBundle, match="was closed"):
        bundle.read("models/a.tflite")


def test_a_file_that_is_replaced_or_cut_while_open(path: Path, sample: Sample, tmp_path: Path) -> None:
    with Bundle.open(path) as bundle:
        (tmp_path / "other").write_bytes(b"other")
        (tmp_path / "other").replace(path)
        assert bundle.read("models/a.tflite") == sample.blobs["models/a.tflite"]
    write_bundle(path, sample.manifest, sample.blobs)
    with Bundle.open(path) as bundle:
        os.truncate(path, 20000)
        with pytest.raises(BadBundle, match="became shorter"):
            bundle.read("vectors/0/y.bin")


def test_short_and_huge_reads_are_put_together(
        path: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pread
    with Bundle.open(path) as bundle:
        monkeypatch.setattr(os, "pread", lambda file, size, offset: real(file, min(size, 1000), offset))
        assert bundle.read("models/a.tflite") == sample.blobs["models/a.tflite"]
        monkeypatch.setattr(read, "_READ_LIMIT", 999)
        assert bundle.read("models/a.tflite") == sample.blobs["models/a.tflite"]


def test_reading_without_pread(path: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pread")
    found: list[bool] = []
    with Bundle.open(path) as bundle:
        def check_all() -> None:
            found.extend(bundle.read(name) == blob for _ in range(50) for name, blob in sample.blobs.items())

        threads = [threading.Thread(target=check_all) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 600
    assert all(found)


def test_an_unknown_entry_lists_the_known_ones(path: Path) -> None:
    with Bundle.open(path) as bundle:
        for use in (bundle.read, bundle.map, bundle.span):
            with pytest.raises(UnknownName, match=r"nope.*Known: models/a\.tflite, vectors/0/x\.bin"):
                use("nope")
        with pytest.raises(UnknownName):
            bundle.read("manifest.json")


@pytest.mark.parametrize(("make", "text"), [
    (Path.exists, "No such file"),
    (Path.mkdir, "Is a directory"),
    (os.mkfifo, "not a regular file"),
    (lambda path: path.symlink_to(path), "symbolic links"),
    (lambda path: path.write_bytes(b""), "ZIP header is missing"),
])
def test_what_is_no_file_at_all(tmp_path: Path, make: Callable[[Path], object], text: str) -> None:
    make(tmp_path / "m.edge")
    begin = time.monotonic()
    with pytest.raises(BadBundle, match=text) as caught:
        Bundle.open(tmp_path / "m.edge")
    assert "m.edge" in str(caught.value)
    assert time.monotonic() - begin < 5


def test_a_path_with_a_nul_character() -> None:
    with pytest.raises(BadBundle, match="null"):
        Bundle.open("a\0b")


# Schema versions


def as_version(path: Path, version: int, tmp_path: Path, **changes: object) -> Path:
    """The bundle with another ``schema_version`` and ``changes`` of the manifest, otherwise whole."""
    with zipfile.ZipFile(path) as file:
        entries = {name: file.read(name) for name in file.namelist()}
    raw = json.loads(entries["manifest.json"]) | {"schema_version": version} | changes
    entries["manifest.json"] = json.dumps({name: value for name, value in raw.items() if value is not ...}).encode()
    out = tmp_path / "other.edge"
    out.write_bytes(b"".join(container.pack(entries)))
    return out


def test_a_newer_schema_is_refused_by_name(path: Path, tmp_path: Path) -> None:
    newer = as_version(path, 9, tmp_path, wonders=[1, 2])
    with pytest.raises(SchemaTooNew, match="needs bundle schema 9; this EdgeKit reads the schemas 1 to 2") as caught:
        Bundle.open(newer)
    assert "pip install" in caught.value.remedy


def test_older_schemas_are_upgraded_step_by_step(
        path: Path, tmp_path: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []

    def to_2(raw: dict[str, object]) -> dict[str, object]:
        steps.append(1)
        return raw | {"schema_version": 2, "title": raw["name"]}

    def to_3(raw: dict[str, object]) -> dict[str, object]:
        steps.append(2)
        assert raw.pop("title") == "sample"
        return raw | {"schema_version": 3, "task": "classification"}

    monkeypatch.setattr(decode, "SCHEMA_VERSION", 3)
    monkeypatch.setattr(decode, "_UPGRADES", {1: to_2, 2: to_3})
    with Bundle.open(path) as bundle:
        assert bundle.manifest.schema_version == 3
        assert bundle.manifest.task == "classification"
        assert bundle.manifest.variants == sample.manifest.variants
        assert json.loads(bundle.manifest_bytes)["schema_version"] == 1
        bundle.verify_all()
    assert steps == [1, 2]
    with Bundle.open(as_version(path, 3, tmp_path)) as bundle:
        assert bundle.manifest.schema_version == 3
    assert steps == [1, 2]


def test_an_upgraded_manifest_is_checked_as_strictly(
        path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "SCHEMA_VERSION", 2)
    monkeypatch.setattr(decode, "_UPGRADES", {1: lambda raw: raw | {"schema_version": 2, "size": len(raw["variants"])}})
    with pytest.raises(BadBundle, match="unknown field `size`"):
        Bundle.open(path)
    with pytest.raises(BadBundle, match=r"not one of schema 1.*KeyError.*variants"):
        Bundle.open(as_version(path, 1, tmp_path, variants=...))
    with pytest.raises(BadBundle, match=r"not one of schema 1.*TypeError"):
        Bundle.open(as_version(path, 1, tmp_path, variants=5))


def test_each_older_schema_has_its_upgrade() -> None:
    assert set(decode._UPGRADES) == set(range(1, manifest.SCHEMA_VERSION))


def test_the_signature_of_an_older_schema_holds(
        path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, test_key: Ed25519PrivateKey) -> None:
    sign_bundle(path, tmp_path / "signed.edge", test_key)
    monkeypatch.setattr(decode, "SCHEMA_VERSION", 2)
    monkeypatch.setattr(decode, "_UPGRADES", {1: lambda raw: raw | {"schema_version": 2, "name": "upgraded"}})
    with Bundle.open(tmp_path / "signed.edge", public_key=test_key.public_key()) as bundle:
        assert bundle.manifest.name == "upgraded"
        assert bundle.signature_checked
    sign_bundle(tmp_path / "signed.edge", tmp_path / "again.edge", test_key)
    assert (tmp_path / "again.edge").read_bytes() == (tmp_path / "signed.edge").read_bytes()


# Signatures


def test_signed_bundles_open_with_the_right_key_in_every_form(
        sample: Sample, keys: tuple[Path, Path], tmp_path: Path) -> None:
    private, public = keys
    write_bundle(tmp_path / "m.edge", sample.manifest, sample.blobs, api.load_private_key(private))
    forms: list[Path | str | bytes] = [public, str(public), public.read_bytes()]
    for key in [*forms, load_public_key(public)]:
        with Bundle.open(tmp_path / "m.edge", public_key=key, require_signature=True) as bundle:
            assert (bundle.signed, bundle.signature_checked) == (True, True)
    with Bundle.open(tmp_path / "m.edge") as bundle:
        assert (bundle.signed, bundle.signature_checked) == (True, False)


def test_the_wrong_key(sample: Sample, keys: tuple[Path, Path], tmp_path: Path, test_key: Ed25519PrivateKey) -> None:
    write_bundle(tmp_path / "m.edge", sample.manifest, sample.blobs, test_key)
    with pytest.raises(SignatureMismatch, match="does not fit"):
        Bundle.open(tmp_path / "m.edge", public_key=keys[1])


def test_a_required_signature(path: Path, keys: tuple[Path, Path]) -> None:
    with pytest.raises(BadKey, match=r"no public key.*--public-key"):
        Bundle.open(path, require_signature=True)
    for require in (True, False):
        with pytest.raises(SignatureMismatch, match=r"not signed.*edgekit sign"):
            Bundle.open(path, public_key=keys[1], require_signature=require)


def test_an_altered_manifest(sample: Sample, tmp_path: Path, test_key: Ed25519PrivateKey) -> None:
    write_bundle(tmp_path / "m.edge", sample.manifest, sample.blobs, test_key)
    with zipfile.ZipFile(tmp_path / "m.edge") as file:
        entries = {name: file.read(name) for name in file.namelist()}
    entries["manifest.json"] = entries["manifest.json"].replace(b'"sample"', b'"simple"')
    (tmp_path / "m.edge").write_bytes(b"".join(container.pack(entries)))
    with Bundle.open(tmp_path / "m.edge") as bundle:
        assert bundle.manifest.name == "simple"
    with pytest.raises(SignatureMismatch, match="does not fit"):
        Bundle.open(tmp_path / "m.edge", public_key=test_key.public_key())


def test_the_golden_bundle(conformance: Path, hostile: object) -> None:
    expected = json.loads((conformance / "golden.json").read_text())
    with Bundle.open(conformance / "golden.edge", public_key=conformance / "test_key.pub") as bundle:
        bundle.verify_all()
        assert bundle.signature_checked is expected["signed"]
        assert bundle.manifest.name == expected["name"]
        assert [variant.id for variant in bundle.manifest.variants] == expected["variants"]
        assert {entry.name: entry.sha256 for entry in bundle.manifest.entries} == expected["entries"]
        assert {name: bundle.span(name)[0] for name in expected["offsets"]} == expected["offsets"]
        assert bundle.read("labels.txt").decode().splitlines() == expected["labels"]
        assert hashlib.sha256(bundle.read("labels.txt")).hexdigest() == expected["entries"]["labels.txt"]


def test_the_golden_bundle_is_what_this_build_writes(
        conformance: Path, tmp_path: Path, test_key: Ed25519PrivateKey) -> None:
    with Bundle.open(conformance / "golden.edge") as bundle:
        blobs = {entry.name: bundle.read(entry.name) for entry in bundle.manifest.entries}
        content: Manifest = bundle.manifest
    write_bundle(tmp_path / "m.edge", content, blobs, test_key)
    assert (tmp_path / "m.edge").read_bytes() == (conformance / "golden.edge").read_bytes()
