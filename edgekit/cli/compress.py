"""``edgekit compress``: a trained torch network from your own code, made smaller for a target and trained again."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
import msgspec
import numpy as np

from edgekit.cli.draw import Drawing, Group, Table, Text
from edgekit.cli.export import user_network
from edgekit.cli.files import digest, megabytes
from edgekit.cli.frame import Frame, verb
from edgekit.cli.options import PATH, output_option
from edgekit.errors import BadInput, MissingExtra
from edgekit.recipe import ExportRecipe, Preprocess

if TYPE_CHECKING:
    from edgekit.artifacts import Array
    from edgekit.compress.run import Size

__all__ = ["Compress", "NetworkSize", "compress"]


class NetworkSize(msgspec.Struct, frozen=True):
    """Of one sample. ``latency_ms``: predicted, null without --device; ``accuracy``: percent of the held-out images."""

    macs: int
    parameters: int
    latency_ms: float | None
    latency_band_ms: tuple[float, float] | None
    accuracy: float


class Compress(msgspec.Struct, frozen=True):
    """What was written. ``accuracy_untrained``: of the smaller network before fine-tuning, percent.

    ``splits``: layers that are two now, and the channels between the halves. ``fits``: R2 of the exponential fit of
    each site's losses. ``onnx``: the ONNX file, null where none was asked for.
    """

    source: str
    output: str
    size_bytes: int
    sha256: str
    onnx: str | None
    device: str | None
    before: NetworkSize
    after: NetworkSize
    accuracy_untrained: float
    splits: dict[str, int]
    fits: tuple[float, ...]
    findings: tuple[str, ...]


class _Share(click.ParamType[float]):
    """``50%`` as 0.5, or a count of multiply-adds such as ``3200000``, ``3.2M``, ``1G``."""

    name = "50%|COUNT"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = re.fullmatch(r"([0-9.]+)\s*(%|k|M|G|)", str(value))
        number = _number(found[1]) if found else None
        if found is None or number is None or number <= 0 or (found[2] == "%" and number >= 100):
            self.fail(f"'{value}' is neither a share such as 50% nor a count such as 3.2M.", param, ctx)
        if found[2] == "%":
            return number / 100
        return max(number * {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}[found[2]], 1 + 1e-9)


class _Milliseconds(click.ParamType[float]):
    """``12ms`` or ``12``."""

    name = "12ms"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = _number(str(value).removesuffix("ms"))
        if number is None or number <= 0:
            self.fail(f"'{value}' is not a time such as 12ms.", param, ctx)
        return number


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _draw(result: Compress) -> Drawing:

    table = Table("", ">MACs", ">parameters", ">accuracy, %", *([f">ms on {result.device}"] if result.device else []))
    for name, size in (("before", result.before), ("after", result.after)):
        table.add_row(name, f"{size.macs / 1e6:,.2f} M", f"{size.parameters / 1e3:,.1f} k", f"{size.accuracy:.2f}",
                      *([] if size.latency_ms is None or size.latency_band_ms is None else [
                          f"{size.latency_ms:.3g} ({size.latency_band_ms[0]:.3g} to {size.latency_band_ms[1]:.3g})"]))
    head = f"{result.output}   {megabytes(result.size_bytes)}" + (f", {result.onnx}" if result.onnx else "")
    splits = ", ".join(f"{name} ({rank})" for name, rank in result.splits.items()) or "none"
    tail = (f"before fine-tuning {result.accuracy_untrained:.2f} %; layers split in two (channels between): {splits}")
    return Group(Text(head + "\n"), table, Text("\n" + "\n".join([tail, *result.findings])))


@verb("compress", draw=_draw)
@click.argument("source", metavar="MODULE:CALLABLE")
@click.option("--weights", type=PATH, metavar="FILE.pt", help="A state dict for the network; without, it has its own.")
@click.option("--data", type=PATH, required=True, metavar="DATA.npz",
              help="Arrays images and labels: to score, to fine-tune, and one of five held out to judge.")
@click.option("--preprocess", type=PATH, metavar="FILE.json",
              help="How uint8 images become inputs (a Preprocess as JSON).")
@click.option("--target-macs", type=_Share(), help="Multiply-adds to be left: a share, or a count.")
@click.option("--target-latency", type=_Milliseconds(), help="Predicted time to be kept on --device.")
@click.option("--device", metavar="ID", help="A profile's id or device (edgekit devices list), or a .json file.")
@click.option("--units", type=click.Choice(["both", "channels", "ranks"]), default="both", show_default=True,
              help="Prune channels, split layers, or both.")
@click.option("--multiple", type=click.IntRange(1), default=8, show_default=True,
              help="Channels that are left are multiples of this.")
@click.option("--epochs", type=click.IntRange(0), default=5, show_default=True, help="Of fine-tuning; 0 for none.")
@click.option("--learning-rate", type=float, default=0.03, show_default=True, help="Of fine-tuning, at its highest.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the order of images.")
@output_option
@click.option("--onnx", type=PATH, metavar="OUT.onnx", help="Export the smaller network as well.")
def compress(
    frame: Frame, source: str, weights: Path | None, data: Path, preprocess: Path | None, target_macs: float | None,
    target_latency: float | None, device: str | None, units: Literal["both", "channels", "ranks"], multiple: int,
    epochs: int, learning_rate: float, seed: int, output: Path, onnx: Path | None,
) -> Compress:
    """Make a trained torch classifier smaller, for multiply-adds or for a device's predicted latency.

    CALLABLE in the Python module MODULE (found in the current folder or installed) takes no arguments and returns the
    trained nn.Module. DATA.npz has images, float32 (N, C, H, W) as the network takes them or uint8 (N, H, W, C), and
    labels (N,). OUT holds the smaller weights: edgekit.compress.rebuild(network, OUT) makes the smaller network of
    what CALLABLE returns.
    """
    if (target_macs is None) == (target_latency is None):
        raise click.UsageError("Give either --target-macs or --target-latency with --device.")
    if target_latency is not None and device is None:
        raise click.UsageError("--target-latency needs the device: --device ID (edgekit devices list).")
    try:
        import torch
    except ImportError as error:
        raise MissingExtra.of("torch", "train") from error
    from edgekit.atomic import write_atomically
    from edgekit.compress import CompressRecipe, Data, Target, load_weights, save
    from edgekit.compress import compress as run
    from edgekit.device_profiles import resolve
    from edgekit.train.loop import TrainRecipe

    profile = None if device is None else resolve(device)
    target = Target(macs=target_macs, latency_ms=target_latency, profile=profile)
    schedule = TrainRecipe(epochs=epochs, learning_rate=learning_rate, seed=seed) if epochs else None
    images, labels = _arrays(data, preprocess)
    network = user_network(source)
    if weights is not None:
        load_weights(network, weights)
    with frame.working(f"Compressing {source}") as show:
        found = run(network, Data(torch.from_numpy(images), torch.from_numpy(labels)), target,
                    CompressRecipe(units=units, multiple=multiple), schedule, show)
    save(found.network, found.splits, output)
    if onnx is not None:
        from edgekit.converters.torch_to_onnx import export

        write_atomically(onnx, export(found.network, torch.from_numpy(images[:1]), ExportRecipe()).data)
    latency = found.after.latency
    return Compress(
        source=source, output=str(output), size_bytes=output.stat().st_size, sha256=digest(output),
        onnx=None if onnx is None else str(onnx), device=None if profile is None else profile.id,
        before=_network_size(found.before, found.accuracy[0]), after=_network_size(found.after, found.accuracy[2]),
        accuracy_untrained=found.accuracy[1], splits=found.splits, fits=found.fits,
        findings=() if latency is None else latency.findings)


def _network_size(size: Size, accuracy: float) -> NetworkSize:
    latency = size.latency
    return NetworkSize(size.macs, size.parameters, None if latency is None else latency.latency_ms,
                       None if latency is None else latency.band_ms, accuracy)


def _arrays(path: Path, preprocess: Path | None) -> tuple[Array, Array]:
    """float32 images as the network takes them, and int64 labels."""
    try:
        with np.load(path, allow_pickle=False) as file:
            images, labels = file["images"], file["labels"]
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"'{path}' does not hold the arrays images and labels: {error}.",
                       "Write it with numpy.savez(path, images=..., labels=...).") from error
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise BadInput(f"The labels are {labels.dtype} {list(labels.shape)}.", "Give whole numbers, one for an image.")
    if images.dtype == np.uint8:
        images = _prepared(images, preprocess)
    elif images.dtype.kind != "f" or images.ndim < 2:
        raise BadInput(f"The images are {images.dtype} {list(images.shape)}.",
                       "Give float32 (N, C, H, W), or uint8 (N, H, W, C).")
    return np.ascontiguousarray(images, np.float32), labels.astype(np.int64)


def _prepared(images: Array, preprocess: Path | None) -> Array:
    if images.ndim != 4 or images.shape[3] not in (1, 3):
        raise BadInput(f"The images are uint8 {list(images.shape)}.", "Give (N, H, W, 3), or (N, H, W, 1) if grey.")
    recipe = Preprocess() if images.shape[3] == 3 else Preprocess(colour="gray", mean=(127.0,), std=(128.0,))
    if preprocess is not None:
        try:
            recipe = msgspec.json.decode(preprocess.read_bytes(), type=Preprocess)
        except (OSError, msgspec.MsgspecError) as error:
            raise BadInput(f"'{preprocess}' is no Preprocess: {error}.", "Write one as JSON.") from error
    if len(recipe.mean) != images.shape[3]:
        raise BadInput(f"The images have {images.shape[3]} channels and the preprocessing {len(recipe.mean)}.",
                       "Give as many means as channels.")
    ordered = images[..., ::-1] if recipe.colour == "bgr" else images
    values = (ordered.astype(np.float32) - np.array(recipe.mean, np.float32)) / np.array(recipe.std, np.float32)
    return np.moveaxis(values, 3, 1)
