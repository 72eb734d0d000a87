"""``edgekit export``: a torch network from your own code to ONNX."""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from edgekit.artifacts import TensorSpec
from edgekit.cli.draw import Drawing, Group, Text
from edgekit.cli.files import digest, megabytes
from edgekit.cli.frame import Frame, verb
from edgekit.cli.options import output_option
from edgekit.errors import BadInput, BadModel, EdgeKitError, MissingExtra, UnknownName
from edgekit.recipe import ExportRecipe

if TYPE_CHECKING:
    import torch

__all__ = ["Export", "draw_export", "export", "user_network"]


class Export(msgspec.Struct, frozen=True):
    """What was exported; ``seconds`` is the time of the exporter alone."""

    source: str
    output: str
    size_bytes: int
    sha256: str
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    seconds: float


def draw_export(result: Export) -> Drawing:
    """The file, and its inputs and outputs."""
    from edgekit.cli.tables import tensors

    head = Text(f"{result.output}   {megabytes(result.size_bytes)}, opset {result.opset}, {result.seconds:.1f} s")
    return Group(head, tensors(result.inputs, result.outputs))


@verb("export", draw=draw_export)
@click.argument("source", metavar="MODULE:CALLABLE")
@click.option("--example", "examples", multiple=True, required=True, metavar="SHAPE[:DTYPE]|FILE.npy",
              help="One input of the network, such as 1,3,224,224 or 1,128:int64. Repeat it for each input.")
@output_option
@click.option("--dynamic-batch", is_flag=True, help="Keep axis 0 of every input dynamic.")
@click.option("--dynamic-hw", is_flag=True, help="Keep axes 2 and 3 of every input of rank 4 dynamic.")
@click.option("--input-name", "input_names", multiple=True, help="Names for the inputs, in order.")
@click.option("--output-name", "output_names", multiple=True, help="Names for the outputs, in order.")
@click.option("--opset", type=int, default=20, show_default=True, help="ONNX opset to write.")
def export(
    frame: Frame, source: str, examples: tuple[str, ...], output: Path, dynamic_batch: bool, dynamic_hw: bool,
    input_names: tuple[str, ...], output_names: tuple[str, ...], opset: int,
) -> Export:
    """Export a torch network to ONNX.

    CALLABLE in the Python module MODULE (found in the current folder or installed) takes no arguments and returns an
    nn.Module.
    """
    from edgekit.atomic import write_atomically
    from edgekit.converters.torch_to_onnx import export as export_module

    recipe = ExportRecipe(dynamic_batch=dynamic_batch, dynamic_hw=dynamic_hw, input_names=input_names,
                          output_names=output_names, opset=opset)
    with frame.working(f"Exporting {source}"):
        tensors = tuple(_tensor(text) for text in examples)
        network = user_network(source)
        start = time.perf_counter()
        model = export_module(network, tensors, recipe)
        seconds = time.perf_counter() - start
    write_atomically(output, model.data)
    return Export(source=source, output=str(output), size_bytes=len(model.data), sha256=digest(output), opset=opset,
                  inputs=model.inputs, outputs=model.outputs, seconds=seconds)


def user_network(source: str) -> torch.nn.Module:
    """What MODULE:CALLABLE returns. Raises UsageError, UnknownName, BadModel."""
    import torch

    module_name, _, name = source.partition(":")
    if not module_name or not name:
        raise click.UsageError(f"'{source}' is not MODULE:CALLABLE, such as my_nets:small.")
    factory = getattr(_imported(module_name), name, None)
    if not callable(factory):
        known = sorted(key for key, value in vars(sys.modules[module_name]).items()
                       if callable(value) and not key.startswith("_"))
        raise UnknownName.of(f"callable of the module '{module_name}'", name, known)
    try:
        network = factory()
    except EdgeKitError:
        raise
    except Exception as error:  # the person's own code may raise anything
        raise BadModel(f"{source}() failed: {type(error).__name__}: {error}.",
                       "The callable is called without arguments; --debug shows where it failed.") from error
    if not isinstance(network, torch.nn.Module):
        raise BadModel(f"{source}() returned a {type(network).__name__}.", "It must return a torch.nn.Module.")
    return network


def _imported(name: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except Exception as error:  # the person's own code may raise anything
        raise BadModel(f"Importing the module '{name}' failed: {type(error).__name__}: {error}.",
                       "Give its name as in an import statement, and run in the folder that holds it.") from error


def _tensor(text: str) -> torch.Tensor:
    """A tensor for ``--example``: random normal numbers for a floating dtype, zeros for another one."""
    import numpy as np

    try:
        import torch
    except ImportError as error:
        raise MissingExtra.of("torch", "train") from error
    if text.endswith(".npy"):
        try:
            return torch.from_numpy(np.load(text, allow_pickle=False))
        except (OSError, ValueError, TypeError) as error:
            raise BadInput(f"The example '{text}' cannot be read: {error}.", "Give an array that numpy.save wrote.") \
                from error
    dims, _, dtype_name = text.partition(":")
    dtype = getattr(torch, dtype_name or "float32", None)
    try:
        shape = [int(dim) for dim in dims.split(",")]
    except ValueError:
        shape = []
    if not shape or min(shape) < 1 or not isinstance(dtype, torch.dtype):
        raise BadInput(f"The example '{text}' is not a shape.", "Write sizes and a torch dtype, such as 1,128:int64.")
    if not dtype.is_floating_point:
        return torch.zeros(shape, dtype=dtype)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
