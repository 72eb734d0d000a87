"""``edgekit sign``: a signed copy of a bundle."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from edgekit.cli.files import digest, megabytes
from edgekit.cli.frame import Frame, verb
from edgekit.cli.options import PATH, key_option, load_key, output_option

__all__ = ["Sign", "sign"]


class Sign(msgspec.Struct, frozen=True):
    """``sha256`` is that of the signed file, in hex."""

    source: str
    output: str
    size_bytes: int
    sha256: str


def _draw(result: Sign) -> str:
    return f"{result.output}   {megabytes(result.size_bytes)}, signed"


@verb("sign", draw=_draw)
@click.argument("source", metavar="IN.edge", type=PATH)
@output_option
@key_option
def sign(_: Frame, source: Path, output: Path, key: Path | None) -> Sign:
    """Write a signed copy of a bundle.

    The bundle is checked first; a signature that is there already is replaced.
    """
    from edgekit.bundle import sign_bundle

    private = load_key(key)
    if private is None:
        raise click.UsageError("Missing option '--key' (or the environment variable EDGEKIT_KEY).")
    sign_bundle(source, output, private)
    return Sign(source=str(source), output=str(output), size_bytes=output.stat().st_size, sha256=digest(output))
