"""Deltas: byte-identical results, and nothing in the way of the old bundle when anything is wrong."""

from __future__ import annotations

import hashlib
import json
import random
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.bundle import generate_key_pair, load_private_key, write_bundle
from edgekit.bundle.delta import apply_delta, make_delta
from edgekit.bundle.delta_match import stretches
from edgekit.bundle.delta_residual import MODES, WORDS, decode, encode, predict
from edgekit.errors import BadBundle, BadKey, EdgeKitError, InternalError, SignatureMismatch, WriteFailed

if TYPE_CHECKING:
    from tests.unit.conftest import Sample

MODEL = "models/a.tflite"


def _weights(rng: np.random.Generator, keep: float, count: int = 40_000) -> np.ndarray:
    values = rng.standard_normal(count).astype("<f4")
    values[rng.random(count) >= keep] = 0
    return values


def _write(path: Path, sample: Sample, model: bytes, **changes: object) -> Path:
    key = changes.pop("key", None)
    manifest = msgspec.structs.replace(sample.manifest, **changes)
    write_bundle(path, manifest, {**sample.blobs, MODEL: model}, key)  # type: ignore[arg-type]
    return path


@pytest.fixture
def pair(tmp_path: Path, sample: Sample) -> tuple[Path, Path]:
    """A bundle with weights of which nine in ten are zero, and the one after some steps of training."""
    rng = np.random.default_rng(1)
    old = _weights(rng, 0.1)
    new = np.where(old != 0, old + rng.normal(0, 0.01, len(old)).astype("<f4"), np.float32(0)).astype("<f4")
    return (_write(tmp_path / "old.edge", sample, b"head" * 50 + old.tobytes()),
            _write(tmp_path / "new.edge", sample, b"head" * 57 + new.tobytes() + b"end", name="next"))


def test_the_result_is_the_new_bundle_byte_for_byte(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    header = make_delta(*pair, tmp_path / "d")
    apply_delta(pair[0], tmp_path / "d", tmp_path / "out.edge")
    assert (tmp_path / "out.edge").read_bytes() == pair[1].read_bytes()
    # a tenth of the weights with mantissas that do not compress, shifted by a table that grew
    assert (tmp_path / "d").stat().st_size < 0.13 * header.result_bytes
    apply_delta(pair[0], tmp_path / "d", pair[0])
    assert pair[0].read_bytes() == pair[1].read_bytes()


def test_the_same_bundle_takes_next_to_nothing(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    header = make_delta(pair[0], pair[0], tmp_path / "d")
    assert all(part.packed_bytes == 0 for part in header.parts)
    assert (tmp_path / "d").stat().st_size < 2000


def test_another_base_is_refused(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    make_delta(*pair, tmp_path / "d")
    before = pair[1].read_bytes()
    with pytest.raises(BadBundle, match="was made for another bundle"):
        apply_delta(pair[1], tmp_path / "d", pair[1])
    assert pair[1].read_bytes() == before
    with pytest.raises(BadBundle, match="Could not open"):
        apply_delta(tmp_path / "none", tmp_path / "d", tmp_path / "out")
    with pytest.raises(BadBundle, match="cannot be used as a delta"):
        apply_delta(pair[0], pair[0], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_signatures(tmp_path: Path, sample: Sample) -> None:
    generate_key_pair(tmp_path / "k", tmp_path / "k.pub")
    generate_key_pair(tmp_path / "other", tmp_path / "other.pub")
    key = load_private_key(tmp_path / "k")
    old = _write(tmp_path / "old.edge", sample, b"a" * 999, key=key)
    new = _write(tmp_path / "new.edge", sample, b"b" * 999, key=key)
    unsigned = _write(tmp_path / "unsigned.edge", sample, b"c" * 999)
    make_delta(old, new, tmp_path / "d")
    apply_delta(old, tmp_path / "d", tmp_path / "out", public_key=tmp_path / "k.pub", require_signature=True)
    assert (tmp_path / "out").read_bytes() == new.read_bytes()
    before = old.read_bytes()
    with pytest.raises(SignatureMismatch, match="signed with another key"):
        apply_delta(old, tmp_path / "d", old, public_key=tmp_path / "other.pub")
    with pytest.raises(BadKey, match="no public key"):
        apply_delta(old, tmp_path / "d", old, require_signature=True)
    make_delta(old, unsigned, tmp_path / "d2")
    with pytest.raises(SignatureMismatch, match="is signed, but"):
        apply_delta(old, tmp_path / "d2", old)
    assert old.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_a_device_is_no_place_for_the_result(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    make_delta(*pair, tmp_path / "d")
    with pytest.raises(WriteFailed, match="device or a pipe"):
        apply_delta(pair[0], tmp_path / "d", Path("/dev/null"))


def test_a_result_that_outgrows_its_base_is_refused(tmp_path: Path, sample: Sample) -> None:
    old = _write(tmp_path / "old.edge", sample, b"a")
    new = _write(tmp_path / "new.edge", sample, bytes(18 << 20))
    with pytest.raises(BadBundle, match="Send the whole bundle"):
        make_delta(old, new, tmp_path / "d")


def _sealed(body: bytes) -> bytes:
    return body + hashlib.sha256(body).digest()


def _edited(data: bytes, rng: random.Random) -> bytes:
    """A change of bytes anywhere, or of the meaning of the header, put together soundly around it."""
    if rng.random() < 0.3:
        changed = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        return bytes(changed[:rng.randrange(len(changed))] if rng.random() < 0.2 else changed)
    start = len(b"edgedelta 1\n") + 4
    (size,) = struct.unpack_from("<I", data, start - 4)
    head, rest = json.loads(data[start:start + size]), bytearray(data[start + size:-32])
    part = rng.choice(head["parts"])
    match rng.randrange(9):
        case 0:
            part["source"] = rng.choice(["manifest.json", MODEL, "vectors/0/y.bin", "x", None])
        case 1:
            part["stretches"] = [[rng.choice([0, 1, 99, 10**6, 2**31]), rng.choice([-1, 0, 7, 10**9])]]
        case 2:
            part["stretches"] = part["stretches"] * rng.choice([0, 2, 5000])
        case 3:
            part["word"] = rng.choice([1, 2, 4, 8, 0, -1])
        case 4:
            part["mode"] = rng.choice(["xor", "replace", "subtract", "add"])
        case 5:
            part["name"] = rng.choice(["manifest.json", "../x", "", "a" * 300, MODEL, "A"])
        case 6:
            head["result_bytes"] = rng.choice([0, 1, 10**6, 2**40])
        case 7:
            head["parts"] = rng.sample(head["parts"], rng.randrange(len(head["parts"])))
        case _:
            for _ in range(rng.randint(1, 3)):
                rest[rng.randrange(len(rest))] = rng.randrange(256)
    text = json.dumps(head, separators=(",", ":")).encode()
    return _sealed(b"edgedelta 1\n" + struct.pack("<I", len(text)) + text + bytes(rest))


def _refused(base: Path, delta: Path, out: Path) -> EdgeKitError | None:
    try:
        apply_delta(base, delta, out)
    except EdgeKitError as error:
        return error
    return None


def _storm(tmp_path: Path, pair: tuple[Path, Path], count: int) -> int:
    """Applies ``count`` changed deltas; the number of those that gave the right bundle all the same."""
    make_delta(*pair, tmp_path / "d")
    good, base, wanted = (tmp_path / "d").read_bytes(), pair[0].read_bytes(), pair[1].read_bytes()
    out, equal = tmp_path / "out.edge", 0
    for number in range(count):
        (tmp_path / "bad").write_bytes(_edited(good, random.Random(number)))
        out.write_bytes(b"kept")
        refused = _refused(pair[0], tmp_path / "bad", out)
        assert not isinstance(refused, InternalError), number
        # accepted is, for example, another mode for a part without bytes of its own
        assert out.read_bytes() == (b"kept" if refused else wanted), number
        equal += refused is None
    assert pair[0].read_bytes() == base
    return equal


def test_300_changed_deltas(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    assert _storm(tmp_path, pair, 300) < 60


@pytest.mark.slow
def test_10_000_changed_deltas(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    assert _storm(tmp_path, pair, 10_000) < 2000


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=600), st.binary(max_size=600), st.integers(0, 300), st.sampled_from(WORDS),
       st.sampled_from(MODES))
def test_any_two_entries(base: bytes, new: bytes, cut: int, word: int, mode: str) -> None:
    new = new + base[cut:]  # so that something is shared, at another place
    predicted = predict(base, stretches(base, new))
    assert len(predicted) == len(new)
    assert decode(encode(new, predicted, word, mode), predicted, word, mode) == new  # type: ignore[arg-type]


def test_a_shift_in_the_middle_is_found() -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, 8000, np.uint8).tobytes()
    new = base[:3000] + b"1234" * 5 + base[3000:]
    copied = predict(base, stretches(base, new))
    assert np.count_nonzero(copied != np.frombuffer(new, np.uint8)) < 64


def test_a_stream_may_not_unpack_to_more_than_the_entry() -> None:
    import zlib

    bomb = zlib.compress(bytes(50_000_000))
    with pytest.raises(BadBundle, match="another size"):
        decode(bomb, np.zeros(100, np.uint8), 4, "xor")
