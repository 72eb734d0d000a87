"""Small questions about files that results answer."""

from __future__ import annotations

import hashlib
from pathlib import Path

from edgekit.errors import BadRecipe

__all__ = ["digest", "megabytes", "refuse_same_file"]


def digest(path: Path) -> str:
    """The SHA-256 of the file at ``path``, in lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def megabytes(size_bytes: int) -> str:
    """``size_bytes`` for a person, in units of 10^6 bytes (10^3 for small files)."""
    return f"{size_bytes / 1e3:.1f} kB" if size_bytes < 100_000 else f"{size_bytes / 1e6:.2f} MB"


def refuse_same_file(source: Path, output: Path) -> None:
    """Raise BadRecipe when ``output`` is ``source``: a slip of the keyboard must not replace the original."""
    if source.exists() and output.exists() and source.samefile(output):
        raise BadRecipe(f"The output '{output}' is the input.", "Give the output another name.")
