"""The command line."""

from potstill.cli.main import main

__all__ = ["main"]
