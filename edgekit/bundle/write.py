"""Write a bundle: the same inputs give the same bytes, and the file appears as a whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edgekit.atomic import write_atomically
from edgekit.bundle.container import MANIFEST, SIGNATURE, pack
from edgekit.bundle.decode import encode_manifest, with_version
from edgekit.bundle.manifest import Entry, Manifest
from edgekit.bundle.plan import decode_plan
from edgekit.bundle.read import Bundle
from edgekit.bundle.sign import make_signature

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["sign_bundle", "write_bundle"]


def write_bundle(path: Path, manifest: Manifest, blobs: Mapping[str, bytes],
                 key: Ed25519PrivateKey | None = None) -> Manifest:
    """Write the bundle and return its manifest, whose ``entries`` are made from ``blobs`` (entry name -> content).

    ``schema_version`` is set by what the manifest holds, and the plan is checked against the ladders.
    ``key`` signs it. Raises BadBundle when the manifest is not consistent with itself and the blobs, for an unsafe
    name and for 4 GiB or more; WriteFailed when the file cannot be written. ``path`` is untouched then.
    """
    entries = tuple(Entry(name, len(blobs[name]), hashlib.sha256(blobs[name]).hexdigest()) for name in sorted(blobs))
    manifest = with_version(msgspec.structs.replace(manifest, entries=entries))
    data = encode_manifest(manifest)
    if manifest.plan_entry is not None:
        decode_plan(blobs[manifest.plan_entry], manifest)
    _write(path, data, blobs, key)
    return manifest


def sign_bundle(path: Path, out: Path, key: Ed25519PrivateKey) -> Manifest:
    """Write to ``out`` (which may be ``path``) the bundle with the signature of ``key``, in place of any it has.

    Every entry is verified first. The manifest's bytes stay as they are. Raises BadBundle, WriteFailed.
    """
    with Bundle.open(path) as bundle:
        bundle.verify_all()
        blobs = {entry.name: bundle.read(entry.name) for entry in bundle.manifest.entries}
        manifest, manifest_bytes = bundle.manifest, bundle.manifest_bytes
    # The file is closed by now: Windows refuses to replace one that is open.
    _write(out, manifest_bytes, blobs, key)
    return manifest


def _write(path: Path, manifest: bytes, blobs: Mapping[str, bytes], key: Ed25519PrivateKey | None) -> None:
    entries = {MANIFEST: manifest}
    if key is not None:
        entries[SIGNATURE] = make_signature(manifest, key)
    entries |= {name: blobs[name] for name in sorted(blobs)}
    write_atomically(path, pack(entries))
