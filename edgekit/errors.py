"""The error tree.

EdgeKitError                    anything EdgeKit raises on purpose
├── UserError                   the input, the options or the machine; the message says what to change
│   ├── BadModel                a model file that cannot be read, is malformed or crashes its parser
│   ├── UnsupportedOps          ops that the target cannot express, all of them at once
│   ├── BadInput                an array or image that does not fit the model
│   ├── BadRecipe               an option, shape or recipe that makes no sense for this model
│   ├── BadBundle               an .edge file that is damaged, hostile or not one at all
│   │   ├── SignatureMismatch   wrong key, altered manifest, or no signature where one is required
│   │   └── SchemaTooNew        written by a later EdgeKit; says which schema it needs
│   ├── BadKey                  a key file that is missing or is not an Ed25519 key
│   ├── UnknownName             a name that is not in a list; the known ones are in the message
│   ├── MissingExtra            a package that is not installed; the message holds the pip line
│   ├── RemoteError             a board that cannot be reached, lacks something, or failed to measure
│   ├── BudgetImpossible        no route of an adaptive bundle keeps the budget; says what the cheapest takes
│   ├── UnstableFigure          a measured figure that spreads or drifts too much to stand for anything
│   ├── WriteFailed             the result could not be written (disk full, no permission)
│   └── VerificationFailed      two engines, or an engine and its test vectors, disagree
├── EngineError                 an inference engine refused or failed on a model that passed our checks
└── InternalError               our bug; please report it
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "BadBundle",
    "BadInput",
    "BadKey",
    "BadModel",
    "BadRecipe",
    "BudgetImpossible",
    "EdgeKitError",
    "EngineError",
    "InternalError",
    "MissingExtra",
    "RemoteError",
    "SchemaTooNew",
    "SignatureMismatch",
    "UnknownName",
    "UnstableFigure",
    "UnsupportedOps",
    "UserError",
    "VerificationFailed",
    "WriteFailed",
]


class EdgeKitError(Exception):
    """Base of the tree: ``message`` names the thing, ``remedy`` says what to do about it.

    Both are plain strings, so that an error survives a process boundary as JSON.
    """

    exit_code = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".rstrip() if self.remedy else self.message

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.message, self.remedy))


class UserError(EdgeKitError):
    """The input, the options or the machine: something the caller can change."""


class BadModel(UserError):
    """A model file that cannot be read, is malformed or crashes its parser."""


class UnsupportedOps(UserError):
    """Ops that the target cannot express; the message lists every one with node, reason and source line."""


class BadInput(UserError):
    """An array or image that does not fit the model."""


class BadRecipe(UserError):
    """An option, shape or recipe that makes no sense for this model."""


class BadBundle(UserError):
    """An .edge file that is damaged, hostile or not one at all."""


class SignatureMismatch(BadBundle):
    """Wrong key, altered manifest, or no signature where one is required."""


class SchemaTooNew(BadBundle):
    """The bundle was written by a later EdgeKit."""


class BadKey(UserError):
    """A key file that is missing or is not an Ed25519 key."""


class UnknownName(UserError):
    """A name that is not in a list of known ones."""

    @classmethod
    def of(cls, kind: str, name: str, known: Iterable[str]) -> UnknownName:
        """The error for ``name``, a ``kind`` that is not among ``known``."""
        return cls(f"Unknown {kind} '{name}'.", f"Known: {', '.join(known) or 'none'}.")


class MissingExtra(UserError):
    """A package that is not installed."""

    @classmethod
    def of(cls, package: str, extra: str) -> MissingExtra:
        """The error for ``package``, which the optional dependency set ``extra`` installs."""
        return cls(
            f"This needs the package '{package}', which is not installed.",
            f"Install it with: pip install 'edgekit-sdk[{extra}]'",
        )


class RemoteError(UserError):
    """A board that cannot be reached, lacks Python or an engine, or failed to measure."""


class BudgetImpossible(UserError):
    """No route of an adaptive bundle keeps the budget."""


class UnstableFigure(UserError):
    """A measured figure that spreads or drifts too much to stand for anything."""


class WriteFailed(UserError):
    """The result could not be written; nothing half-written was left behind."""


class VerificationFailed(UserError):
    """Two engines, or an engine and its test vectors, disagree by more than the tolerance."""


class EngineError(EdgeKitError):
    """An inference engine refused or failed on a model that passed our checks."""


class InternalError(EdgeKitError):
    """Our bug."""

    exit_code = 70
