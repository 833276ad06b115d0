"""Types of the commands' arguments: how the command line names and explains them.

Help of more than a line is here, as tyro keeps the line breaks of a docstring's `Args`.
"""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from potstill.errors import UsageError
from potstill.settings import Precision

OUTPUT, TEACHER = "--output", "--teacher"
Serial = Annotated[
    Positional[int],
    arg(metavar="SR", help="Serial number, 0 to 4294967295: the random seed of the run."),
]
Sentences = Annotated[
    Positional[tuple[str, ...]], arg(metavar="[SENTENCE ...]", help_behavior_hint="")
]
Adapters = Annotated[
    Positional[tuple[Path, ...]], arg(metavar="ADAPTER ADAPTER ...", help_behavior_hint="")
]
Runs = Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN [RUN ...]", help_behavior_hint="")]
LabelledData = Annotated[
    Positional[str],
    arg(metavar="DATA", help="Labelled sentences: a file, a folder, cola, minicola or auto."),
]
Variant = Annotated[
    str,
    arg(
        metavar="NAME",
        help="gpt2, gpt2-medium, gpt2-large, gpt2-xl, distilgpt2, smollm2, any causal language "
        "model of the Hugging Face Hub, a local folder, or auto: GPT-2 if it is cached or can be "
        "downloaded, else SmolLM2.",
    ),
]
AdapterVariant = Annotated[
    str | None,
    arg(
        metavar="NAME",
        help="Base decoder of the adapter. Default: the one recorded in its folder.",
        help_behavior_hint="",
    ),
]
DecoderPrecision = Annotated[
    Precision,
    arg(help="Arithmetic of the decoder; auto: bf16 if the hardware speeds it up, else fp32."),
]
ScoringData = Annotated[
    str,
    arg(
        help="Data to score on: a file, a folder with dev files, cola, minicola, or auto: what the "
        "model was trained on.",
    ),
]
OptionalPath = Annotated[Path | None, arg(help_behavior_hint="")]
ModelPath = Annotated[
    Path | None,
    arg(
        help="Folder of an adapter or a student, or its name on the Hugging Face Hub, owner/name. "
        "Default: the newest student in runs/, else the newest adapter there, else the student "
        "that comes with potstill.",
        help_behavior_hint="",
    ),
]
TeacherPath = Annotated[
    Path | None,
    arg(
        aliases=[TEACHER],
        help="Folder or Hub name of the teacher, an adapter. Default: runs/LoRA-SR.",
        help_behavior_hint="",
    ),
]
OutputPath = Annotated[Path, arg(aliases=[OUTPUT])]
OptionalOutputPath = Annotated[Path | None, arg(aliases=[OUTPUT], help_behavior_hint="")]
ALIASES = ((OutputPath, OUTPUT), (OptionalOutputPath, OUTPUT), (TeacherPath, TEACHER))


def check_serial(SR: int) -> None:
    if not 0 <= SR < 2**32:
        raise UsageError(f"SR {SR} is out of range: it takes a whole number from 0 to 4294967295.")
