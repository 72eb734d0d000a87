"""The .edge file: models, test vectors, labels and a manifest in one signed, checked file (runtimes/SPEC.md)."""

from edgekit.bundle.adaptive import Gate, Ladder, Plan, Promise, Route, Stage, Step
from edgekit.bundle.manifest import SCHEMA_VERSION, BlobRef, Entry, Manifest, Provenance, TestVector, Variant
from edgekit.bundle.plan import check_plan, decode_plan, encode_plan, ladders_of, ladders_sha256
from edgekit.bundle.read import Bundle
from edgekit.bundle.sidecar import read_plan, write_plan
from edgekit.bundle.sign import generate_key_pair, load_private_key, load_public_key
from edgekit.bundle.write import sign_bundle, write_bundle

__all__ = [
    "SCHEMA_VERSION",
    "BlobRef",
    "Bundle",
    "Entry",
    "Gate",
    "Ladder",
    "Manifest",
    "Plan",
    "Promise",
    "Provenance",
    "Route",
    "Stage",
    "Step",
    "TestVector",
    "Variant",
    "check_plan",
    "decode_plan",
    "encode_plan",
    "generate_key_pair",
    "ladders_of",
    "ladders_sha256",
    "load_private_key",
    "load_public_key",
    "read_plan",
    "sign_bundle",
    "write_bundle",
    "write_plan",
]
