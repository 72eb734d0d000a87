"""Ed25519 signatures of bundles, and the key files. cryptography is imported only when a key is used."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.errors import BadKey, SignatureMismatch, WriteFailed

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = [
    "PLAN_DOMAIN", "SIGNATURE_BYTES", "SIGNATURE_DOMAIN", "check_signature", "generate_key_pair", "load_private_key",
    "load_public_key", "make_signature",
]

SIGNATURE_BYTES = 64
SIGNATURE_DOMAIN = b"edgekit bundle manifest 1\x00"
"""Signed in front of the manifest, so that no signature made for another purpose is taken for one of a bundle."""

PLAN_DOMAIN = b"edgekit plan 1\x00"
"""The same for a plan in a file of its own."""

_MAX_KEY_FILE_BYTES = 65536


def make_signature(data: bytes, key: Ed25519PrivateKey, domain: bytes = SIGNATURE_DOMAIN) -> bytes:
    """The 64 bytes of manifest.sig for the exact bytes of manifest.json; with PLAN_DOMAIN those for a plan."""
    return key.sign(domain + data)


def check_signature(
    data: bytes, signature: bytes, key: Ed25519PublicKey, domain: bytes = SIGNATURE_DOMAIN
) -> None:
    """Raise SignatureMismatch unless ``signature`` was made for ``data`` with the private half of ``key``."""
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, domain + data)
    except InvalidSignature:
        raise SignatureMismatch(
            "The signature does not fit: the file was altered, or signed with another key.",
            "Obtain it anew from its author, or give the public key that belongs to it.") from None


def generate_key_pair(private_path: Path, public_path: Path) -> None:
    """Write a new Ed25519 pair: PKCS #8 PEM (mode 0600, not encrypted) and SubjectPublicKeyInfo PEM.

    Raises WriteFailed when a file of either name exists (a lost key cannot be made again) or cannot be written; then
    neither file is left behind.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                serialization.NoEncryption())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    _create(private_path, private, 0o600)
    try:
        _create(public_path, public, 0o644)
    except BaseException:
        private_path.unlink()
        raise


def load_private_key(path: Path) -> Ed25519PrivateKey:
    """The key of a PKCS #8 PEM file. Raises BadKey when it is missing, encrypted or not an Ed25519 private key."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(_key_bytes(Path(path)), password=None)
    except TypeError as error:
        raise BadKey(f"The key file '{path}' is encrypted.", "Give an unencrypted PKCS #8 PEM file.") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadKey(f"'{path}' holds no private key in PEM form.", _REMEDY) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise BadKey(f"The private key in '{path}' is not an Ed25519 key.", _REMEDY)
    return key


def load_public_key(source: Path | str | bytes) -> Ed25519PublicKey:
    """The key of a SubjectPublicKeyInfo PEM file, or of its content as bytes.

    Raises BadKey when the file is missing or holds no Ed25519 public key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    data, what = (source, "The given key") if isinstance(source, bytes) else (_key_bytes(Path(source)), f"'{source}'")
    if b"PRIVATE KEY" in data:
        raise BadKey(f"{what} is a private key.", "Give the public key; keep the private one to yourself.")
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadKey(f"{what} holds no public key in PEM form.", _REMEDY) from error
    if not isinstance(key, Ed25519PublicKey):
        raise BadKey(f"{what} is not an Ed25519 key.", _REMEDY)
    return key


_REMEDY = "Make a pair with: edgekit keygen"


def _key_bytes(path: Path) -> bytes:
    if path.exists() and not path.is_file():
        raise BadKey(f"The key file '{path}' is not a regular file.", _REMEDY)
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_KEY_FILE_BYTES + 1)
    except OSError as error:
        raise BadKey(f"Could not read the key file '{path}': {error.strerror}.", _REMEDY) from error
    if len(data) > _MAX_KEY_FILE_BYTES:
        raise BadKey(f"'{path}' is too large to be a key file.", _REMEDY)
    return data


def _create(path: Path, data: bytes, mode: int) -> None:
    """Write a file that must not exist yet, with its permissions from the first moment on."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
    except FileExistsError as error:
        raise WriteFailed(f"The key file '{path}' exists already.",
                          "Choose another name; a key that is overwritten is lost.") from error
    except OSError as error:
        raise WriteFailed(f"Could not write the key file '{path}': {error.strerror}.",
                          "Choose a folder that exists and can be written to.") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink()
        raise WriteFailed(f"Could not write the key file '{path}': {error.strerror}.",
                          "Free some space; nothing was left behind.") from error
