"""Options and arguments that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = [
    "NAMED_SHAPE", "PATH", "engine_option", "io_layout_option", "key_option", "load_key", "output_option",
    "public_key_options", "shape_option", "tolerance_option",
]

F = TypeVar("F", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)


class _NamedShape(click.ParamType[tuple[str, tuple[int, ...]]]):
    """``name=1,3,224,224``; a name may hold an equals sign itself."""

    name = "NAME=N,C,H,W"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        name, _, dims = str(value).rpartition("=")
        try:
            shape = tuple(int(dim) for dim in dims.split(","))
        except ValueError:
            shape = ()
        if not name or not shape or min(shape) < 1:
            self.fail(f"'{value}' is not a name, an equals sign and sizes of at least 1, such as x=1,3,224,224.",
                      param, ctx)
        return name, shape


NAMED_SHAPE = _NamedShape()


def shape_option(function: F) -> F:
    """``--shape``, repeatable: a tuple of (name, shape) as ``shape``."""
    return click.option("--shape", type=NAMED_SHAPE, multiple=True,
                        help="Fix a dynamic input, in the ONNX order of axes. May be given for each input.")(function)


def output_option(function: F) -> F:
    """``-o/--output``, required."""
    return click.option("-o", "--output", type=PATH, required=True, help="The file to write.")(function)


def io_layout_option(function: F) -> F:
    """``--io-layout``."""
    return click.option("--io-layout", type=click.Choice(["auto", "onnx", "nhwc"]), default="auto", show_default=True,
                        help="For LiteRT: NHWC for images, all as in ONNX, or NHWC for all of rank 4.")(function)


def tolerance_option(function: F) -> F:
    """``--tolerance``."""
    return click.option("--tolerance", type=float, default=1e-4, show_default=True,
                        help="Largest difference allowed, as a part of each output's range.")(function)


def engine_option(function: F) -> F:
    """``--engine`` for reading a bundle."""
    return click.option("--engine", type=click.Choice(["auto", "litert", "ort"]), default="auto", show_default=True,
                        help="Which of a bundle's engines to use.")(function)


def key_option(function: F) -> F:
    """``--key``, else the environment's EDGEKIT_KEY."""
    return click.option("--key", type=PATH, envvar="EDGEKIT_KEY", show_envvar=True,
                        help="Private Ed25519 key (PEM) to sign with.")(function)


def public_key_options(function: F) -> F:
    """``--public-key`` and ``--require-signature``."""
    function = click.option("--require-signature", is_flag=True,
                            help="Refuse a bundle without a signature; needs --public-key.")(function)
    return click.option("--public-key", type=PATH, help="Public Ed25519 key (PEM) that must have signed.")(function)


def load_key(path: Path | None) -> Ed25519PrivateKey | None:
    """The private key in ``path``. Raises BadKey."""
    if path is None:
        return None
    from edgekit.bundle import load_private_key

    return load_private_key(path)
