"""``edgekit keygen``: a pair of keys to sign bundles with."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from edgekit.cli.frame import Frame, verb
from edgekit.cli.options import PATH

__all__ = ["Keygen", "keygen"]


class Keygen(msgspec.Struct, frozen=True):
    """Where the keys are. ``fingerprint`` is the SHA-256 of the public key file, in hex."""

    private_key: str
    public_key: str
    fingerprint: str


def _draw(result: Keygen) -> str:
    return (
        f"private key  {result.private_key}   (keep it to yourself; sign with --key or EDGEKIT_KEY)\n"
        f"public key   {result.public_key}   (ship it; check with --public-key)\n"
        f"fingerprint  {result.fingerprint}"
    )


@verb("keygen", draw=_draw)
@click.argument("private_key", metavar="PRIVATE.pem", type=PATH)
@click.argument("public_key", metavar="PUBLIC.pem", type=PATH)
def keygen(_: Frame, private_key: Path, public_key: Path) -> Keygen:
    """Make an Ed25519 key pair. Existing files are never overwritten."""
    import hashlib

    from edgekit.bundle import generate_key_pair

    generate_key_pair(private_key, public_key)
    fingerprint = hashlib.sha256(public_key.read_bytes()).hexdigest()
    return Keygen(private_key=str(private_key), public_key=str(public_key), fingerprint=fingerprint)
