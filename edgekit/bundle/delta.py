"""Deltas: what turns one bundle into the next, so that an update need not carry what a device has already.

A delta needs no signature of its own: its result holds that of the new bundle, and is checked against the author's key
before it takes the place of anything.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edgekit.atomic import write_atomically
from edgekit.bundle.container import MANIFEST, SIGNATURE, pack
from edgekit.bundle.delta_format import DeltaHeader, DeltaPart, pack_delta, read_delta
from edgekit.bundle.delta_match import stretches
from edgekit.bundle.delta_residual import MODES, WORDS, Mode, Stretch, decode, encode, predict
from edgekit.bundle.read import Bundle
from edgekit.errors import BadBundle, SignatureMismatch

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

__all__ = ["apply_delta", "make_delta"]

_MOST_GROWTH, _FREE_BYTES = 4, 16 << 20


def make_delta(base: Path, new: Path, out: Path) -> DeltaHeader:
    """Write to ``out`` what ``apply_delta`` needs to make the bundle ``new``, byte for byte, of the bundle ``base``.

    Each entry is predicted from one of the base and stored as its departure, in the smallest of nine forms. Both
    bundles are verified first. Raises BadBundle (also where the new one is so much larger than the base that a device
    would refuse it), WriteFailed.
    """
    old_entries, new_entries = _entries(base), _entries(new)
    _check_growth(base.stat().st_size, new.stat().st_size)
    parts: list[DeltaPart] = []
    packed: list[bytes] = []
    for name, data in new_entries.items():
        part, departure = _part(name, data, old_entries)
        parts.append(part)
        packed.append(departure)
    header = DeltaHeader(_sha256(base), base.stat().st_size, _sha256(new), new.stat().st_size, tuple(parts))
    write_atomically(out, pack_delta(header, packed))
    return header


def apply_delta(
    base: Path, delta: Path, out: Path, *, public_key: Ed25519PublicKey | Path | str | bytes | None = None,
    require_signature: bool = False,
) -> DeltaHeader:
    """Write to ``out`` (which may be ``base``) the bundle that ``delta`` makes of ``base``.

    The base's hash is checked before anything is unpacked; the result's hash, its entries and its signature (with
    ``public_key``; it must be signed in any case where the base is) before it takes its place in one step. Whatever
    fails, ``out`` stays what it was. A result may have at most 4 times the bytes of the base and 16 MiB.

    Raises BadBundle (another base, a damaged or hostile delta), SignatureMismatch, BadKey, WriteFailed.
    """
    header, packed = read_delta(delta)
    if base.is_file() and (base.stat().st_size != header.base_bytes or _sha256(base) != header.base_sha256):
        raise BadBundle(f"The delta '{delta}' was made for another bundle than '{base}'.",
                        f"It wants the one with SHA-256 {header.base_sha256}.")
    _check_growth(header.base_bytes, header.result_bytes)
    entries = _entries(base)
    signed = SIGNATURE in entries
    made = {part.name: _made(part, departure, entries) for part, departure in zip(header.parts, packed, strict=True)}
    if len(made) != len(header.parts):
        raise BadBundle(f"The delta '{delta}' makes an entry twice.")

    def check(result: Path) -> None:
        if result.stat().st_size != header.result_bytes or _sha256(result) != header.result_sha256:
            raise BadBundle(f"The delta '{delta}' does not give the file that it promises.",
                            "Obtain it anew, or the whole bundle.")
        with Bundle.open(result, public_key=public_key, require_signature=require_signature) as bundle:
            bundle.verify_all()
            if signed and not bundle.signed:
                raise SignatureMismatch(f"'{base}' is signed, but what '{delta}' makes of it is not.",
                                        "Ask its author for a delta to a signed bundle.")

    write_atomically(out, pack(made), check)
    return header


class _Form(NamedTuple):
    word: int
    mode: Mode
    packed: bytes


def _part(name: str, data: bytes, base: dict[str, bytes]) -> tuple[DeltaPart, bytes]:
    source = _source(name, data, base)
    old = b"" if source is None else base[source]
    if data == old:
        return DeltaPart(name, source, ((len(data), 0),) if data else (), 1, "replace", 0), b""
    choices: list[tuple[tuple[Stretch, ...], str | None]] = [(((len(data), -1),), None)]
    if source is not None:
        choices.append((stretches(old, data), source))
    best: tuple[int, tuple[Stretch, ...], str | None, _Form] | None = None
    for pieces, from_entry in choices:
        form = min(_forms(data, old, pieces), key=lambda each: len(each.packed))
        cost = len(form.packed) + 16 * len(pieces)
        if best is None or cost < best[0]:
            best = cost, pieces, from_entry, form
    assert best is not None
    _, pieces, from_entry, form = best
    return DeltaPart(name, from_entry, pieces, form.word, form.mode, len(form.packed)), form.packed


def _forms(data: bytes, base: bytes, pieces: tuple[Stretch, ...]) -> list[_Form]:
    predicted = predict(base, pieces)
    copies = any(offset >= 0 for _, offset in pieces)
    modes: tuple[Mode, ...] = MODES if copies else ("replace",)  # on zeros all three are the same
    return [_Form(word, mode, encode(data, predicted, word, mode)) for word in WORDS for mode in modes]


def _source(name: str, data: bytes, base: dict[str, bytes]) -> str | None:
    """The entry of the base that predicts best: the same bytes, else the same name, else one of the same kind."""
    if base.get(name) == data:
        return name
    for other, have in base.items():
        if have == data:
            return other
    if name in base:
        return name
    folder, _, kind = name.rpartition("/")[0], "", name.rpartition(".")[2]
    alike = [other for other in base if other.rpartition("/")[0] == folder and other.rpartition(".")[2] == kind]
    return min(alike, key=lambda other: abs(len(base[other]) - len(data)), default=None)


def _made(part: DeltaPart, packed: bytes, base: dict[str, bytes]) -> bytes:
    if part.source is not None and part.source not in base:
        raise BadBundle(f"The delta copies from the entry '{part.source[:100]}', which the base does not have.")
    predicted = predict(b"" if part.source is None else base[part.source], part.stretches)
    return decode(packed, predicted, part.word, part.mode) if packed else predicted.tobytes()


def _entries(path: Path) -> dict[str, bytes]:
    """All entries in the order of the file, the manifest and its signature among them, verified."""
    with Bundle.open(path) as bundle:
        bundle.verify_all()
        found = {MANIFEST: bundle.manifest_bytes}
        if bundle.signature is not None:
            found[SIGNATURE] = bundle.signature
        return found | {entry.name: bundle.read(entry.name) for entry in sorted(
            bundle.manifest.entries, key=lambda entry: entry.name)}


def _check_growth(base_bytes: int, result_bytes: int) -> None:
    most = _MOST_GROWTH * base_bytes + _FREE_BYTES
    if result_bytes > most:
        raise BadBundle(f"The new bundle has {result_bytes} bytes; a delta may make at most {most} of a base of "
                        f"{base_bytes}.", "Send the whole bundle.")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


