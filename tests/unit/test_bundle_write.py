"""Writing: one result for one input, all or nothing; keys."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit.artifacts import TensorSpec
from edgekit.bundle import (
    Bundle,
    Manifest,
    Variant,
    container,
    generate_key_pair,
    load_private_key,
    load_public_key,
    sign_bundle,
    write_bundle,
)
from edgekit.errors import BadBundle, BadKey, WriteFailed

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from tests.unit.conftest import Sample

# Both processes build the manifest from the golden bundle and write it again and again with content of their own.
TWO_WRITERS = """
import sys
from pathlib import Path
from edgekit.bundle import Bundle, write_bundle
out, golden, fill = Path(sys.argv[1]), sys.argv[2], sys.argv[3].encode()
with Bundle.open(golden) as bundle:
    manifest, blobs = bundle.manifest, {entry.name: bundle.read(entry.name) for entry in bundle.manifest.entries}
for number in range(25):
    blobs["labels.txt"] = fill * 300_000
    write_bundle(out, manifest, blobs)
"""

LIMITED = """
import resource, sys
from pathlib import Path
from edgekit.bundle import Bundle, sign_bundle, load_private_key
from edgekit.errors import WriteFailed
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
try:
    sign_bundle(Path(sys.argv[1]), Path(sys.argv[1]), load_private_key(Path(sys.argv[2])))
except WriteFailed as error:
    print(error)
    sys.exit(3)
"""

NAMES = st.text("abcXYZ019._-/", min_size=1, max_size=12).filter(lambda name: container.check_name(name) is None)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_same_input_gives_the_same_bytes(sample: Sample, tmp_path: Path, test_key: Ed25519PrivateKey) -> None:
    first, second = tmp_path / "a.edge", tmp_path / "b.edge"
    write_bundle(first, sample.manifest, sample.blobs, test_key)
    provenance = msgspec.structs.replace(
        sample.manifest.provenance,
        recipe=dict(reversed(sample.manifest.provenance.recipe.items())),
        tools=dict(reversed(sample.manifest.provenance.tools.items())))
    shuffled = msgspec.structs.replace(sample.manifest, provenance=provenance)
    write_bundle(second, shuffled, dict(sorted(sample.blobs.items())), test_key)
    assert first.read_bytes() == second.read_bytes()


def test_it_returns_the_manifest_with_its_entries(sample: Sample, tmp_path: Path) -> None:
    written = write_bundle(tmp_path / "m.edge", sample.manifest, sample.blobs)
    assert [entry.name for entry in written.entries] == sorted(sample.blobs)
    with Bundle.open(tmp_path / "m.edge") as bundle:
        assert bundle.manifest == written


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(blobs=st.dictionaries(NAMES, st.binary(max_size=40), max_size=6), seed=st.binary(min_size=32, max_size=32))
def test_any_blobs_come_back(sample: Sample, tmp_path: Path, blobs: dict[str, bytes], seed: bytes) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.from_private_bytes(seed)
    every = {**sample.blobs, **blobs}
    try:
        container._check_names(list(every))
    except BadBundle:
        return  # two names clash; test_names_are_checked covers it
    # A blob of the sample may be overwritten by one of another size: then the manifest is right to be refused.
    every |= {name: blob for name, blob in sample.blobs.items() if name.startswith("vectors/")}
    write_bundle(tmp_path / "m.edge", sample.manifest, every, key)
    with Bundle.open(tmp_path / "m.edge", public_key=key.public_key()) as bundle:
        bundle.verify_all()
        assert {entry.name: bundle.read(entry.name) for entry in bundle.manifest.entries} == every


@pytest.mark.parametrize("name", ["../x", "/x", "a\\b", "a//b", "x ", "é", "", "manifest.json", "manifest.sig",
                                  "MODELS/A.TFLITE", "models/a.tflite/b"])
def test_names_are_checked_before_anything_is_written(sample: Sample, tmp_path: Path, name: str) -> None:
    with pytest.raises(BadBundle):
        write_bundle(tmp_path / "m.edge", sample.manifest, {**sample.blobs, name: b"x"})
    assert names(tmp_path) == []


def test_references_are_checked_before_anything_is_written(sample: Sample, tmp_path: Path) -> None:
    with pytest.raises(BadBundle, match=r"models/a\.tflite"):
        write_bundle(tmp_path / "m.edge", sample.manifest, {"vectors/0/x.bin": bytes(12), "vectors/0/y.bin": bytes(8)})
    with pytest.raises(BadBundle, match=r"needs 12 bytes"):
        write_bundle(tmp_path / "m.edge", sample.manifest, {**sample.blobs, "vectors/0/x.bin": bytes(13)})
    spec = TensorSpec("x", "bfloat16", (1, 3))
    variant: Variant = msgspec.structs.replace(sample.manifest.variants[0], inputs=(spec,))
    with pytest.raises(BadBundle, match="unknown dtype 'bfloat16'"):
        write_bundle(tmp_path / "m.edge", msgspec.structs.replace(sample.manifest, variants=(variant,)), sample.blobs)
    assert names(tmp_path) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_values_that_json_cannot_hold(sample: Sample, tmp_path: Path, value: object) -> None:
    if isinstance(value, float):
        vector = msgspec.structs.replace(sample.manifest.test_vectors[0], tolerance=value)
        manifest = msgspec.structs.replace(sample.manifest, test_vectors=(vector,))
    else:
        provenance = msgspec.structs.replace(sample.manifest.provenance, recipe={"a": value})
        manifest = msgspec.structs.replace(sample.manifest, provenance=provenance)
    with pytest.raises(BadBundle, match="manifest"):
        write_bundle(tmp_path / "m.edge", manifest, sample.blobs)
    assert names(tmp_path) == []


class HugeBytes(bytes):
    """Says that it has 3 GiB."""

    def __len__(self) -> int:
        return 3 << 30


def test_4_gib_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadBundle, match="below 4 GiB"):
        container.pack({"manifest.json": b"{}", "a": HugeBytes(), "b": HugeBytes()})
    container.pack({"manifest.json": b"{}", "a": HugeBytes()})
    entries = {"manifest.json": b"{}", "a": b"x" * 100_000}
    size = sum(map(len, container.pack(entries)))
    monkeypatch.setattr(container, "MAX_FILE_BYTES", size)
    container.pack(entries)
    monkeypatch.setattr(container, "MAX_FILE_BYTES", size - 1)
    with pytest.raises(BadBundle, match=f"take {size} bytes"):
        container.pack(entries)


def test_too_many_entries() -> None:
    with pytest.raises(BadBundle, match="5001 entries"):
        container.pack({f"e{number}": b"" for number in range(5001)})


# All or nothing


@pytest.mark.parametrize("after", [0, 1, 3, 5])
def test_the_disk_fills_up(sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    path = tmp_path / "m.edge"
    write_bundle(path, sample.manifest, sample.blobs)
    old = path.read_bytes()
    real, calls = os.write, 0

    def fill_up(descriptor: int, data: bytes) -> int:
        nonlocal calls
        calls += 1
        if calls > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", fill_up)
    changed: Manifest = msgspec.structs.replace(sample.manifest, name="other")
    with pytest.raises(WriteFailed, match=r"No space left.*space"):
        write_bundle(path, changed, sample.blobs)
    assert path.read_bytes() == old
    assert names(tmp_path) == ["m.edge"]


def test_the_disk_fills_up_in_another_process(sample: Sample, tmp_path: Path) -> None:
    path = tmp_path / "m.edge"
    generate_key_pair(tmp_path / "key", tmp_path / "key.pub")
    write_bundle(path, sample.manifest, sample.blobs)
    old = path.read_bytes()
    done = subprocess.run([sys.executable, "-c", LIMITED, path, tmp_path / "key"], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 3, done.stderr
    assert path.read_bytes() == old
    assert names(tmp_path) == ["key", "key.pub", "m.edge"]


def test_two_processes_write_the_same_bundle(conformance: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.edge"
    writers = [subprocess.Popen([sys.executable, "-c", TWO_WRITERS, path, conformance / "golden.edge", letter])
               for letter in "AB"]
    opened = 0
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            with Bundle.open(path) as bundle:
                bundle.verify_all()
                assert bundle.read("labels.txt") in (b"A" * 300_000, b"B" * 300_000)
            opened += 1
    assert [writer.returncode for writer in writers] == [0, 0]
    assert opened > 3
    assert names(tmp_path) == ["m.edge"]


# Signing and keys


def test_signing_in_place_and_again(sample: Sample, tmp_path: Path, test_key: Ed25519PrivateKey) -> None:
    path = tmp_path / "m.edge"
    write_bundle(path, sample.manifest, sample.blobs)
    with Bundle.open(path) as bundle:
        before = bundle.manifest_bytes
    generate_key_pair(tmp_path / "key", tmp_path / "key.pub")
    sign_bundle(path, path, load_private_key(tmp_path / "key"))
    with Bundle.open(path, public_key=tmp_path / "key.pub") as bundle:
        assert bundle.manifest_bytes == before
    sign_bundle(path, path, test_key)
    with Bundle.open(path, public_key=test_key.public_key()) as bundle:
        bundle.verify_all()
    write_bundle(tmp_path / "direct.edge", sample.manifest, sample.blobs, test_key)
    assert path.read_bytes() == (tmp_path / "direct.edge").read_bytes()


def test_a_damaged_bundle_is_not_signed(sample: Sample, tmp_path: Path, test_key: Ed25519PrivateKey) -> None:
    path = tmp_path / "m.edge"
    write_bundle(path, sample.manifest, sample.blobs)
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"weights")] ^= 1
    path.write_bytes(raw)
    with pytest.raises(BadBundle, match=r"models/a\.tflite"):
        sign_bundle(path, tmp_path / "out.edge", test_key)
    assert names(tmp_path) == ["m.edge"]


def test_key_files(tmp_path: Path) -> None:
    private, public = tmp_path / "key", tmp_path / "key.pub"
    generate_key_pair(private, public)
    assert private.read_text().startswith("-----BEGIN PRIVATE KEY-----")
    assert public.read_text().startswith("-----BEGIN PUBLIC KEY-----")
    assert private.stat().st_mode & 0o777 == 0o600
    assert load_private_key(private).public_key() == load_public_key(public)


@pytest.mark.parametrize("existing", ["key", "key.pub"])
def test_a_key_is_never_overwritten(tmp_path: Path, existing: str) -> None:
    (tmp_path / existing).write_bytes(b"precious")
    with pytest.raises(WriteFailed, match=f"{existing}' exists already"):
        generate_key_pair(tmp_path / "key", tmp_path / "key.pub")
    assert (tmp_path / existing).read_bytes() == b"precious"
    assert names(tmp_path) == [existing]


def test_no_place_for_a_key(tmp_path: Path) -> None:
    with pytest.raises(WriteFailed, match="No such file"):
        generate_key_pair(tmp_path / "none" / "key", tmp_path / "key.pub")
    assert names(tmp_path) == []


def other_keys() -> dict[str, bytes]:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    curve = ec.generate_private_key(ec.SECP256R1())
    return {
        "curve": curve.private_bytes(pem, pkcs8, serialization.NoEncryption()),
        "curve.pub": curve.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo),
        "encrypted": ed25519.Ed25519PrivateKey.generate().private_bytes(
            pem, pkcs8, serialization.BestAvailableEncryption(b"secret")),
    }


@pytest.mark.parametrize(("content", "private_text", "public_text"), [
    (None, "No such file", "No such file"),
    (b"", "no private key in PEM", "no public key in PEM"),
    (b"hello", "no private key in PEM", "no public key in PEM"),
    (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "no private key", "is a private key"),
    (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "no private key", "no public key"),
    (bytes(70_000), "too large", "too large"),
    ("curve", "not an Ed25519 key", "is a private key"),
    ("curve.pub", "no private key", "not an Ed25519 key"),
    ("encrypted", "is encrypted", "is a private key"),
])
def test_bad_key_files(tmp_path: Path, content: bytes | str | None, private_text: str, public_text: str) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(other_keys()[content] if isinstance(content, str) else content)
    with pytest.raises(BadKey, match=private_text):
        load_private_key(path)
    with pytest.raises(BadKey, match=public_text):
        load_public_key(path)


def test_a_folder_or_pipe_is_no_key(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(BadKey, match="not a regular file"):
            load_private_key(path)
        with pytest.raises(BadKey, match="not a regular file"):
            load_public_key(path)
