"""What became of a model: per node, where it runs, how far it is off."""

from edgekit.report.conversion import ConversionReport, NodeReport, report_conversion

__all__ = ["ConversionReport", "NodeReport", "report_conversion"]
