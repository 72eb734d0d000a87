"""``edgekit zoo``: compact architectures, listed, counted, and exported to ONNX."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

import click
import msgspec

from edgekit.cli.draw import Drawing, Table, Text
from edgekit.cli.export import Export, draw_export
from edgekit.cli.files import digest
from edgekit.cli.frame import Frame, verb
from edgekit.cli.options import PATH
from edgekit.errors import MissingExtra
from edgekit.recipe import ExportRecipe
from edgekit.zoo.registry import ZOO, ZooEntry, build, find

__all__ = ["Zoo", "ZooExit", "zoo"]

_Source = Literal["edgekit", "timm", "torchvision"]


class ZooExit(msgspec.Struct, frozen=True):
    """A submodule at which an exit can be attached, and the share of the multiply-adds done by then."""

    name: str
    share: float


class Zoo(msgspec.Struct, frozen=True):
    """``networks``: those asked for. ``macs``, ``parameters``, ``exits``: counted, for show; ``export``: for export."""

    networks: tuple[ZooEntry, ...]
    macs: int | None = None
    parameters: int | None = None
    exits: tuple[ZooExit, ...] = ()
    export: Export | None = None


def _draw(result: Zoo) -> Drawing:

    if result.export is not None:
        return draw_export(result.export)
    if result.macs is not None and result.parameters is not None:
        return Text(_shown(result, result.macs, result.parameters))
    table = Table("name", "network", ">pixels", ">MACs", ">parameters", "published by")
    for entry in result.networks:
        table.add_row(entry.name, Text(entry.title), str(entry.resolution), _millions(entry.macs),
                      _millions(entry.parameters), Text(entry.source))
    return table


def _shown(result: Zoo, macs: int, parameters: int) -> str:
    entry = result.networks[0]
    published = [f"{_millions(value)} {what}" for what, value in (("MACs", entry.macs),
                                                                   ("parameters", entry.parameters)) if value]
    exits = [f"exit    {each.name}, {each.share:.0%} of the MACs" for each in result.exits]
    return "\n".join([
        f"{entry.name}: {entry.title}", f"builder edgekit/zoo/{entry.family}.py",
        f"counted {_millions(macs)} MACs, {_millions(parameters)} parameters",
        f"paper   {', '.join(published)} ({entry.source})" if published else "paper   no published counts",
        f"input   float32 (N, 3, {entry.resolution}, {entry.resolution}), "
        f"{'any size' if entry.dynamic else 'this size only'}; {entry.classes} classes",
        *(exits or ["no exits: its output is not of shape (N, classes)"]),
    ])


def _millions(value: float | None) -> str:
    return "" if value is None else f"{value / 1e6:.3g} M" if value < 1e9 else f"{value / 1e9:.3g} G"


@verb("zoo", draw=_draw)
@click.argument("action", type=click.Choice(["list", "show", "export"]), default="list")
@click.argument("name", required=False)
@click.option("--filter", "text", default="", help="For list: only names and titles with this text.")
@click.option("--width", type=float, help="Factor of the architecture's channels.")
@click.option("--depth", type=float, help="Factor of the blocks of each stage.")
@click.option("--resolution", type=int, help="Pixels of the square input.")
@click.option("--classes", type=int, help="Number of classes.")
@click.option("-o", "--output", type=PATH, help="For export: the .onnx file to write.")
@click.option("--weights", type=PATH, help="For export: a state dict that torch.save wrote; random weights without.")
@click.option("--source", type=click.Choice(["edgekit", "timm", "torchvision"]), default="edgekit", show_default=True,
              help="Whose names the tensors of --weights have.")
@click.option("--skip-head", is_flag=True, help="Leave the classifier of --weights out (another number of classes).")
@click.option("--dynamic-batch", is_flag=True, help="Keep the number of images dynamic.")
@click.option("--dynamic-hw", is_flag=True, help="Keep height and width dynamic, where the network allows it.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random weights.")
def zoo(
    frame: Frame, action: str, name: str | None, text: str, width: float | None, depth: float | None,
    resolution: int | None, classes: int | None, output: Path | None, weights: Path | None, source: _Source,
    skip_head: bool, dynamic_batch: bool, dynamic_hw: bool, seed: int,
) -> Zoo:
    """List compact architectures, show one, or export one to ONNX.

    show counts the multiply-adds and parameters of NAME and says where exits can be attached; export writes it with
    random weights, or those of --weights, with BatchNorm folded. Width, depth, resolution and classes replace its own.
    """
    if action == "list":
        if name is not None:
            raise click.UsageError("list takes no name. Try --filter, or: edgekit zoo show NAME")
        return Zoo(tuple(entry for entry in ZOO if text.lower() in f"{entry.name} {entry.title}".lower()))
    if name is None:
        raise click.UsageError(f"Which network? edgekit zoo {action} NAME; the names are in: edgekit zoo list")
    given = {"width": width, "depth": depth, "resolution": resolution, "classes": classes}
    size = {key: value for key, value in given.items() if value is not None}
    entry = msgspec.structs.replace(find(name), **size)
    if action == "show":
        return _show(entry, size)
    if output is None:
        raise click.UsageError("Which file? edgekit zoo export NAME -o OUT.onnx")
    recipe = ExportRecipe(dynamic_batch=dynamic_batch, dynamic_hw=dynamic_hw, input_names=("image",),
                          output_names=("logits",))
    with frame.working(f"Exporting {name}"):
        return Zoo((entry,), export=_export(entry, output, recipe, (weights, source, skip_head), seed))


def _show(entry: ZooEntry, size: dict[str, float]) -> Zoo:
    try:
        from edgekit.zoo.counts import counts, exit_shares
    except ImportError as error:
        raise MissingExtra.of(error.name or "torch", "train") from error
    found = counts(entry.name, **size)
    exits = exit_shares(entry.name, **size)
    if size:  # what was published is not about a network of another size
        entry = msgspec.structs.replace(entry, macs=None, parameters=None, source="")
    return Zoo((entry,), found.macs, found.parameters, tuple(ZooExit(*each) for each in exits))


def _export(entry: ZooEntry, output: Path, recipe: ExportRecipe, state: tuple[Path | None, _Source, bool],
            seed: int) -> Export:
    from edgekit.atomic import write_atomically

    weights, source, skip_head = state
    network = build(entry.name, width=entry.width, depth=entry.depth, resolution=entry.resolution,
                    classes=entry.classes, seed=seed)
    from edgekit.zoo.state import load_state, read_state
    from edgekit.zoo.to_onnx import to_onnx

    if weights is not None:
        load_state(network, read_state(weights), source, skip_head)
    start = time.perf_counter()
    model = to_onnx(network, entry, entry.resolution, recipe)
    seconds = time.perf_counter() - start
    write_atomically(output, model.data)
    return Export(source=f"zoo:{entry.name}", output=str(output), size_bytes=len(model.data), sha256=digest(output),
                  opset=recipe.opset, inputs=model.inputs, outputs=model.outputs, seconds=seconds)
