"""Plans in a file of their own (.edgeplan), signed or not, so that a plan can be renewed without the weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.atomic import write_atomically
from edgekit.bundle.adaptive import Plan
from edgekit.bundle.manifest import Manifest
from edgekit.bundle.plan import MAX_PLAN_BYTES, check_plan, decode_plan, encode_plan
from edgekit.bundle.sign import PLAN_DOMAIN, check_signature, load_public_key, make_signature
from edgekit.errors import BadBundle, BadKey, SignatureMismatch

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = ["read_plan", "write_plan"]

_HEAD = re.compile(rb"edgeplan 1 (unsigned|[0-9a-f]{128})\n")
_MAX_HEAD = 140


def write_plan(path: Path | str, plan: Plan, manifest: Manifest, key: Ed25519PrivateKey | None = None) -> None:
    """Write ``plan``, which must fit the ladders of ``manifest``; ``key`` signs it. Raises BadBundle, WriteFailed."""
    check_plan(plan, manifest)
    data = encode_plan(plan)
    mark = b"unsigned" if key is None else make_signature(data, key, PLAN_DOMAIN).hex().encode("ascii")
    write_atomically(Path(path), b"edgeplan 1 " + mark + b"\n" + data)


def read_plan(
    path: Path | str,
    manifest: Manifest,
    *,
    public_key: Ed25519PublicKey | Path | str | bytes | None = None,
    require_signature: bool = False,
) -> Plan:
    """The plan in the file, checked: its signature when ``public_key`` is given, then that it fits ``manifest``.

    A key asks for a signature, and ``require_signature`` for a key, as for bundles. Raises BadBundle (missing, damaged,
    of other ladders), SignatureMismatch (unsigned, altered, other key), BadKey.
    """
    if require_signature and public_key is None:
        raise BadKey(f"A signature is required for '{path}', but there is no public key to check it with.",
                     "Give the public key of the plan's author (public_key, or --public-key FILE).")
    key = load_public_key(public_key) if isinstance(public_key, Path | str | bytes) else public_key
    try:
        return decode_plan(_checked(_content(Path(path)), key), manifest)
    except BadBundle as error:
        raise type(error)(f"'{path}' cannot be used as a plan. {error.message}",
                          error.remedy or "Make it anew with: edgekit plan --sidecar") from error


def _content(path: Path) -> bytes:
    if path.exists() and not path.is_file():
        raise BadBundle("It is not a regular file.")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_PLAN_BYTES + _MAX_HEAD + 1)
    except OSError as error:
        raise BadBundle(f"It cannot be read: {error.strerror}.", "Check the path.") from error
    if len(data) > MAX_PLAN_BYTES + _MAX_HEAD:
        raise BadBundle(f"It is larger than {MAX_PLAN_BYTES} bytes.")
    return data


def _checked(data: bytes, key: Ed25519PublicKey | None) -> bytes:
    head = _HEAD.match(data)
    if head is None:
        raise BadBundle("It does not start with the line of a plan file.")
    plan = data[head.end():]
    if key is not None:
        if head[1] == b"unsigned":
            raise SignatureMismatch("It is not signed, but a public key was given to check it with.",
                                    "Ask its author to sign it, or give no key.")
        check_signature(plan, bytes.fromhex(head[1].decode("ascii")), key, PLAN_DOMAIN)
    return plan
