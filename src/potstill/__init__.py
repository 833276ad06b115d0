"""potstill: turn a GPT into a tiny classifier."""

from potstill.errors import PotstillError, UsageError, UserError

__version__ = "0.1.0"
__all__ = ["PotstillError", "UsageError", "UserError", "__version__"]
