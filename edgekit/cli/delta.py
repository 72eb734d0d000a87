"""``edgekit delta``: what turns one bundle into the next, for updates over the air."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from edgekit.cli.files import digest, megabytes
from edgekit.cli.frame import Frame, verb
from edgekit.cli.options import PATH, output_option, public_key_options
from edgekit.errors import BadKey

__all__ = ["Delta", "delta"]


class Delta(msgspec.Struct, frozen=True):
    """``size_bytes`` and ``sha256`` are of ``output``: the delta (make) or the new bundle (apply).

    ``result_bytes``: of the new bundle. ``entries_changed``: those that carry bytes of their own.
    """

    action: str
    base: str
    other: str
    output: str
    size_bytes: int
    sha256: str
    base_bytes: int
    result_bytes: int
    entries: int
    entries_changed: int


def _draw(result: Delta) -> str:
    if result.action == "apply":
        return f"{result.output}   {megabytes(result.size_bytes)}, checked"
    return (f"{result.output}   {megabytes(result.size_bytes)}, {result.size_bytes / result.result_bytes:.1%} of the "
            f"new bundle; {result.entries_changed} of {result.entries} entries change")


@verb("delta", draw=_draw)
@click.argument("action", type=click.Choice(["make", "apply"]))
@click.argument("base", metavar="BASE.edge", type=PATH)
@click.argument("other", metavar="NEW.edge|DELTA", type=PATH)
@output_option
@public_key_options
def delta(
    _: Frame, action: str, base: Path, other: Path, output: Path, **checks: object
) -> Delta:
    """Make a delta of two bundles, or apply one.

    make BASE.edge NEW.edge -o D.edgedelta; apply BASE.edge D.edgedelta -o NEW.edge. The output of apply may be
    BASE.edge itself: it is replaced in one step, after the new bundle's hash and signature were checked.
    """
    from edgekit.bundle.delta import apply_delta, make_delta

    key, required = checks["public_key"], bool(checks["require_signature"])
    if action == "make":
        if key is not None or required:
            raise click.UsageError("--public-key and --require-signature are for apply.")
        header = make_delta(base, other, output)
    else:
        if required and key is None:
            raise BadKey("A signature is required, but there is no public key to check it with.",
                         "Give the public key of the bundle's author (--public-key FILE).")
        assert key is None or isinstance(key, Path)
        header = apply_delta(base, other, output, public_key=key, require_signature=required)
    return Delta(
        action=action, base=str(base), other=str(other), output=str(output), size_bytes=output.stat().st_size,
        sha256=digest(output), base_bytes=header.base_bytes, result_bytes=header.result_bytes,
        entries=len(header.parts), entries_changed=sum(part.packed_bytes > 0 for part in header.parts))
