"""The photographs of EDGEKIT_SHARED (default ../shared)."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np

from edgekit.artifacts import Array

__all__ = ["SHARED", "photographs", "read_pack"]

SHARED = Path(os.environ.get("EDGEKIT_SHARED", "../shared"))


def read_pack(path: Path, prefix: str, count: int | None = None) -> tuple[list[Array], Array]:
    """uint8 (height, width, 3) pictures of a pack of JPEG files, and their classes (int64)."""
    from PIL import Image

    with np.load(path) as pack:
        data, offsets = pack[f"{prefix}jpeg"], pack[f"{prefix}offsets"]
        labels = pack[f"{prefix}labels"][:count].astype(np.int64)
    pictures = [np.asarray(Image.open(io.BytesIO(data[offsets[i]:offsets[i + 1]].tobytes())).convert("RGB"))
                for i in range(len(labels))]
    return pictures, labels


def photographs(file: str, prefix: str, count: int | None = None) -> tuple[list[Array], Array]:
    """As ``read_pack``, from the folder data of EDGEKIT_SHARED."""
    return read_pack(SHARED / "data" / file, prefix, count)
