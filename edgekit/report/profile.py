"""``profile_report``: everything that can be said about a model and a device before the device is at hand."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from edgekit.bundle import Bundle
from edgekit.device_profiles import DeviceProfile, load_profiles
from edgekit.errors import BadModel, EdgeKitError
from edgekit.graph.costs import GraphCosts, OpClass, OpCost
from edgekit.graph.costs_read import graph_costs
from edgekit.measure_subject import ENGINE_OF
from edgekit.profile.predict import LatencyPrediction, predict
from edgekit.report.findings import Finding, findings_of
from edgekit.report.layers import LayerNoise, layer_noise
from edgekit.report.placed import PlacementReport, placement_of

__all__ = ["DeviceRow", "ProfileReport", "Roof", "RooflinePoint", "profile_report", "roof_of"]

Shapes = Mapping[str, tuple[int, ...]]


class RooflinePoint(msgspec.Struct, frozen=True):
    """One op: multiply-adds for each byte moved, and 10^9 multiply-adds a second as predicted."""

    name: str
    kind: str
    op_class: OpClass
    macs_per_byte: float
    gmacs_per_s: float
    latency_ms: float


class Roof(msgspec.Struct, frozen=True):
    """What the profile itself says of an op that suits the device best: 10^9 multiply-adds and bytes a second."""

    gmacs_per_s: float
    gbytes_per_s: float


class DeviceRow(msgspec.Struct, frozen=True):
    """The same model on another device; ``low_ms`` to ``high_ms`` is the 90 % band."""

    profile: str
    device: str
    latency_ms: float
    low_ms: float
    high_ms: float
    inside_domain: bool


class ProfileReport(msgspec.Struct, frozen=True, kw_only=True):
    """Of one model on one device. ``live_bytes``: activations in use while each op of ``prediction.ops`` runs; None
    where shapes are unknown. ``placement``: None where it could not be found, and ``placement_note`` says why.
    ``layers``: the error that quantization adds, by layer; None without a float reference. ``classes``: of the ops.
    """

    subject: str
    size_bytes: int
    sha256: str
    device: str
    precision: str
    parameters: int
    weight_bytes: int
    peak_activation_bytes: int | None
    live_bytes: tuple[int, ...] | None
    prediction: LatencyPrediction
    classes: tuple[OpClass, ...]
    roofline: tuple[RooflinePoint, ...]
    roof: Roof
    placement: PlacementReport | None
    placement_note: str
    layers: tuple[LayerNoise, ...] | None
    reference: str
    devices: tuple[DeviceRow, ...]
    findings: tuple[Finding, ...]


def profile_report(
    path: Path, profile: DeviceProfile, shapes: Shapes | None = None, against: Path | None = None,
    layers: Sequence[LayerNoise] | None = None, subject: str = "",
) -> ProfileReport:
    """The report on the .onnx or .tflite file at ``path``, called ``subject``, on the device of ``profile``.

    Of a bundle (.edge) it is about the variant for the profile's runtime, else about the one for LiteRT.

    ``against``: the float .onnx or .tflite file that a quantized .tflite ``path`` was made from; its layers are
    compared on random inputs, unless the result of such a comparison is given as ``layers``. Raises BadModel,
    BadInput, BadRecipe, UnknownName, MissingExtra, EngineError.
    """
    if path.suffix.lower() == ".edge":
        with _variant(path, profile) as (file, name):
            return profile_report(file, profile, shapes, against, layers, f"{path.name}, {name}")
    costs = graph_costs(path, shapes or {})
    prediction = predict(costs, profile, ENGINE_OF.get(path.suffix.lower()))
    extra: list[OpClass] = ["unknown"] * (len(prediction.ops) - len(costs.ops))
    placement, note = _placement(path)
    if layers is None and against is not None:
        layers = layer_noise(path, against)
    points = tuple(
        RooflinePoint(
            op.name, op.kind, op.op_class, op.macs / op.bytes_moved, op.macs / timed.latency_ms / 1e6,
            timed.latency_ms)
        for op, timed in zip(costs.ops, prediction.ops, strict=False)  # a prediction may add the overhead of a run
        if op.macs and op.bytes_moved and timed.latency_ms > 0
    )
    data = path.read_bytes()
    return ProfileReport(
        subject=subject or path.name, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest(),
        device=", ".join(filter(None, (profile.device, profile.soc))),
        precision="quantized" if any(op.bits < 16 for op in costs.ops if op.macs) else "float",
        parameters=costs.parameters, weight_bytes=costs.weight_bytes,
        peak_activation_bytes=costs.peak_activation_bytes, live_bytes=costs.live_bytes, prediction=prediction,
        classes=(*(op.op_class for op in costs.ops), *extra),
        roofline=points, roof=roof_of(profile), placement=placement, placement_note=note,
        layers=None if layers is None else tuple(layers), reference="" if against is None else against.name,
        devices=_devices(costs), findings=findings_of(costs, prediction, placement, layers),
    )


@contextlib.contextmanager
def _variant(path: Path, profile: DeviceProfile) -> Iterator[tuple[Path, str]]:
    """A file with the variant of the bundle that a report is about, and the variant's id."""
    with Bundle.open(path) as bundle, tempfile.TemporaryDirectory(prefix="edgekit-report-") as folder:
        known = [each for each in bundle.manifest.variants if each.format != "ort"]
        if not known:
            raise BadModel(f"The variants of '{path}' are .ort files, whose graph cannot be read.",
                           "Give the .onnx file that it was made from.")
        own = "ort" if profile.runtime == "onnxruntime" else "litert"
        chosen = next((each for each in known if each.engine == own), known[0])
        file = Path(folder) / f"model.{chosen.format}"
        file.write_bytes(bundle.read(chosen.entry))
        yield file, chosen.id


def roof_of(profile: DeviceProfile) -> Roof:
    """What the profile predicts for a large 1x1 convolution, and for an addition whose tensors fit no cache."""
    channels, side = 256, 56
    area = channels * side * side
    product = OpCost(
        name="roof", kind="CONV_2D", op_class="conv", macs=area * channels, in_elements=area, out_elements=area,
        weight_elements=channels * channels, cin=channels, cout=channels, out_h=side, out_w=side,
    )
    adding = OpCost(
        name="roof", kind="ADD", op_class="elementwise", in_elements=8 * area, out_elements=4 * area, cin=channels,
        cout=channels, out_h=2 * side, out_w=2 * side,
    )
    product_ms, adding_ms = (predict(GraphCosts((op,), 0, 0), profile).latency_ms for op in (product, adding))
    return Roof(product.macs / product_ms / 1e6, adding.bytes_moved / adding_ms / 1e6)


def _placement(path: Path) -> tuple[PlacementReport | None, str]:
    try:
        return placement_of(path), ""
    except EdgeKitError as error:  # the rest of the report stands without it
        return None, str(error)


def _devices(costs: GraphCosts) -> tuple[DeviceRow, ...]:
    """Every calibrated profile, the fastest first."""
    rows = []
    for profile in load_profiles():
        if profile.confidence == "calibrated" and profile.fit is not None:
            found = predict(costs, profile)
            rows.append(DeviceRow(profile.id, profile.device, found.latency_ms, *found.band_ms, found.inside_domain))
    return tuple(sorted(rows, key=lambda row: row.latency_ms))
