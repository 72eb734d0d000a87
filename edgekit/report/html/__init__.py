"""The report as one HTML page."""

from edgekit.report.html.page import html_page

__all__ = ["html_page"]
