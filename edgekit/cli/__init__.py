"""The command line: one file for each verb, ``frame`` for what they share. Nothing else imports it."""

from edgekit.cli.root import main

__all__ = ["main"]
