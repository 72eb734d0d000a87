"""The .edge file: models, test vectors, labels and a manifest in one signed, checked file (runtimes/SPEC.md)."""

from edgekit.bundle.manifest import SCHEMA_VERSION, BlobRef, Entry, Manifest, Provenance, TestVector, Variant
from edgekit.bundle.read import Bundle
from edgekit.bundle.sign import generate_key_pair, load_private_key, load_public_key
from edgekit.bundle.write import sign_bundle, write_bundle

__all__ = [
    "SCHEMA_VERSION",
    "BlobRef",
    "Bundle",
    "Entry",
    "Manifest",
    "Provenance",
    "TestVector",
    "Variant",
    "generate_key_pair",
    "load_private_key",
    "load_public_key",
    "sign_bundle",
    "write_bundle",
]
