"""One function per command: its signature is the flags, its docstring the help.

Each function checks its arguments and calls the recipe of the same name. Heavy imports are inside
the functions, so that `--help` answers at once.
"""

from potstill.cli.commands.train import LoRA, average, distil, make, pretrain, rnn, transfer
from potstill.cli.commands.use import check, evaluate, export, gen, predict, report, serve

__all__ = [
    "LoRA",
    "average",
    "check",
    "distil",
    "evaluate",
    "export",
    "gen",
    "make",
    "predict",
    "pretrain",
    "report",
    "rnn",
    "serve",
    "transfer",
]
