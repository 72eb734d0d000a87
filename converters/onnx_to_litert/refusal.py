"""The way to say that the target cannot express a node."""

from __future__ import annotations

__all__ = ["NoOwnForm", "Refused"]


class Refused(Exception):
    """The target cannot express this node: ``reason``, and what the user can do. Collected, reported once for all."""

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


class NoOwnForm(Refused):
    """The lowering leaves this form of the op to the function body that the standard gives; what that says counts."""
