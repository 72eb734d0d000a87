"""Rules about accelerators: one file for each, and its line here. They are hints; only a compilation is certain."""

from edgekit.report.accelerators.coreml import COREML
from edgekit.report.accelerators.gpu import GPU
from edgekit.report.accelerators.nnapi import NNAPI
from edgekit.report.accelerators.qnn import QNN
from edgekit.report.accelerators.rule import Accelerator, Hints, LeftOp, OpFacts, hints

__all__ = ["ACCELERATORS", "Accelerator", "Hints", "LeftOp", "OpFacts", "hints"]

ACCELERATORS: tuple[Accelerator, ...] = (
    GPU,
    NNAPI,
    QNN,
    COREML,
)
