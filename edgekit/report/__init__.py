"""What became of a model: per node, where it runs, how far it is off (``conversion.report_conversion``)."""

from edgekit.report.types import ConversionReport, NodeReport

__all__ = ["ConversionReport", "NodeReport"]
