"""Types of the commands' arguments: how the command line names and explains them."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

Serial = Annotated[Positional[int], arg(metavar="SR", help="Whole number that seeds everything.")]
Variant = Annotated[
    str,
    arg(
        metavar="NAME",
        help="gpt2, gpt2-medium, gpt2-large, gpt2-xl, distilgpt2, smollm2, a Hub name, a local "
        "folder, or auto: GPT-2 where it is at hand, else SmolLM2.",
    ),
]
OptionalPath = Annotated[Path | None, arg(help_behavior_hint="")]
Sentences = Annotated[
    Positional[tuple[str, ...]], arg(metavar="[SENTENCE ...]", help_behavior_hint="")
]
Adapters = Annotated[
    Positional[tuple[Path, ...]], arg(metavar="ADAPTER ADAPTER ...", help_behavior_hint="")
]
