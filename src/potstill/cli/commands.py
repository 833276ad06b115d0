"""One function per command; their signatures are the command line's flags.

Thin on purpose: each hands its arguments to a recipe. Heavy imports stand inside the functions, so
that `--help` answers at once.
"""

import os
from pathlib import Path
from typing import Literal

from potstill.cli.options import Adapters, OptionalPath, Sentences, Serial, Variant
from potstill.errors import UsageError
from potstill.settings import (
    DataSettings,
    DistilSettings,
    LoRASettings,
    OptionalInt,
    OptionalText,
    PretrainSettings,
    StudentSettings,
    Switch,
    TrainSettings,
    TransferSettings,
    check,
)

SERENITY = (
    "Grant me the serenity to accept the things I cannot change, the courage to change the things "
    "I can, and the wisdom to know the difference."
)


def gen(
    SR: Serial,
    gpt_variant: Variant = "auto",
    prompt: str = SERENITY,
    max_new_tokens: int = 50,
    temperature: float = 0.8,
    top_k: int = 50,
    top_p: float = 0.95,
    greedy: Switch = False,
) -> None:
    """Continue a prompt with the base decoder.

    Args:
        prompt: Text to continue.
        max_new_tokens: Tokens to add, at most.
        temperature: Below 1 plays safe, above 1 takes risks.
        top_k: Draw among the k likeliest tokens only; 0 for all.
        top_p: Draw among the likeliest tokens of this joint probability; 1 for all.
        greedy: Always take the likeliest token.
    """
    _check_serial(SR)
    check("max_new_tokens", max_new_tokens, max_new_tokens >= 1, "1 or more")
    wanted = "more than 0; for no randomness use --greedy"
    check("temperature", temperature, temperature > 0, wanted)
    check("top_k", top_k, top_k >= 0, "0 or more")
    check("top_p", top_p, 0 < top_p <= 1, "more than 0 and up to 1")
    _prepare_libraries()
    from potstill.recipes import gen as recipe

    recipe.generate(SR, gpt_variant, prompt, max_new_tokens, temperature, top_k, top_p, greedy)


def LoRA(
    SR: Serial,
    lora: LoRASettings = LoRASettings(),
    data: DataSettings = DataSettings(),
    train: TrainSettings = TrainSettings(lr=6e-4),
    gpt_variant: Variant = "auto",
    model_path: OptionalPath = None,
    plots_path: Path = Path("plots"),
) -> None:
    """Tune the base decoder on the corpus with low-rank adapters.

    Args:
        model_path: Folder to write the adapter to. Default: runs/LoRA-SR.
        plots_path: Folder for lora_training_plot.png.
    """
    _check_serial(SR)
    folder = model_path or Path(f"runs/LoRA-{SR}")
    _prepare_libraries()
    from potstill.recipes import lora as recipe

    recipe.tune(SR, lora, data, train, gpt_variant, folder, plots_path)


def average(
    adapters: Adapters = (),
    data: str = "auto",
    gpt_variant: OptionalText = None,
    model_path: Path = Path("runs/LoRA-average"),
) -> None:
    """Average adapters of several SRs into one, which can be better than each.

    Args:
        adapters: Folders of adapters that LoRA tuned, on the same base and data.
        data: What to score them on: a file, a folder's dev files, cola, minicola, or auto: what
            they learned from.
        gpt_variant: The adapters' base. Default: the one they name.
        model_path: Folder to write the average to.
    """
    if len({adapter.resolve() for adapter in adapters}) < max(2, len(adapters)):
        raise UsageError("name two adapters or more, each once.")
    _prepare_libraries()
    from potstill.recipes import average as recipe

    recipe.average(list(adapters), data, gpt_variant, model_path)


def transfer(
    SR: Serial,
    transfer: TransferSettings = TransferSettings(),
    unlabelled: OptionalPath = None,
    relabel: OptionalPath = None,
    model_path: OptionalPath = None,
    gpt_variant: OptionalText = None,
    precision: Literal["auto", "bf16", "fp32"] = "auto",
    transfer_path: OptionalPath = None,
    show: OptionalInt = None,
) -> None:
    """Make a transfer set, or go on with one: unlabelled sentences with the teacher's logits.

    Args:
        unlabelled: A text file of your own with a sentence a line, to be in the set.
        relabel: Folder of an earlier set, whose sentences come first and are labelled anew.
        model_path: Folder of the teacher's adapter. Default: runs/LoRA-SR.
        gpt_variant: The teacher's base. Default: the one its adapter names.
        precision: Arithmetic of the decoder.
        transfer_path: Folder of the set. Default: runs/transfer-SR.
        show: Make nothing; print this many sentences of the finished set.
    """
    _check_serial(SR)
    teacher = model_path or Path(f"runs/LoRA-{SR}")
    folder = transfer_path or Path(f"runs/transfer-{SR}")
    if show is not None:
        check("show", show, show >= 1, "1 or more")
    _prepare_libraries()
    from potstill.recipes import transfer as recipe

    if show is not None:
        recipe.show_sentences(folder, show, SR)
        return
    sources = unlabelled, relabel
    recipe.collect(SR, transfer, *sources, teacher, gpt_variant, precision, folder)


def distil(
    SR: Serial,
    distillation: DistilSettings = DistilSettings(),
    student: StudentSettings = StudentSettings(),
    pretraining: PretrainSettings = PretrainSettings(),
    data: DataSettings = DataSettings(),
    train: TrainSettings = TrainSettings(batch_size=64),
    model_path: OptionalPath = None,
    gpt_variant: OptionalText = None,
    transfer_set: OptionalPath = None,
    student_path: OptionalPath = None,
    plots_path: Path = Path("plots"),
) -> None:
    """Distil the tuned decoder into DistilRNN; with --data auto, on the teacher's own data.

    Args:
        model_path: Folder of the teacher's adapter. Default: runs/LoRA-SR.
        gpt_variant: The teacher's base. Default: the one its adapter names.
        transfer_set: Folder of unlabelled sentences to learn from too; potstill transfer makes it.
        student_path: Folder to write the student to. Default: runs/distil-SR.
        plots_path: Folder for distilrnn_training_plot.png.
    """
    _check_serial(SR)
    teacher = model_path or Path(f"runs/LoRA-{SR}")
    folder = student_path or Path(f"runs/distil-{SR}")
    _prepare_libraries()
    from potstill.recipes import distil as recipe

    settings = student, pretraining, data, train
    recipe.distil(
        SR, distillation, *settings, teacher, gpt_variant, transfer_set, folder, plots_path
    )


def rnn(
    SR: Serial,
    student: StudentSettings = StudentSettings(),
    pretraining: PretrainSettings = PretrainSettings(),
    data: DataSettings = DataSettings(),
    train: TrainSettings = TrainSettings(batch_size=64),
    student_path: OptionalPath = None,
    plots_path: Path = Path("plots"),
) -> None:
    """Train the same student without a teacher: the control.

    Args:
        student_path: Folder to write the student to. Default: runs/rnn-SR.
        plots_path: Folder for rnn_training_plot.png.
    """
    _check_serial(SR)
    folder = student_path or Path(f"runs/rnn-{SR}")
    _prepare_libraries()
    from potstill.recipes import rnn as recipe

    recipe.train_control(SR, student, pretraining, data, train, folder, plots_path)


def evaluate(
    model_path: OptionalPath = None,
    data: str = "auto",
    text_column: OptionalText = None,
    label_column: OptionalText = None,
    precision: Literal["auto", "bf16", "fp32"] = "auto",
    gpt_variant: OptionalText = None,
    json: Switch = False,
) -> None:
    """Score a saved model on labelled data.

    Args:
        model_path: Folder of an adapter or a student. Default: the student trained last in runs/,
            else the one that came with potstill.
        data: A file, a folder's dev files, cola, minicola, or auto: what the model learned from.
        text_column: Column (or JSON key) of the text. Default: sentence or text.
        label_column: Column (or JSON key) of the label. Default: label.
        precision: Arithmetic of a decoder.
        gpt_variant: An adapter's base. Default: the one it names.
        json: Print one JSON object instead of tables.
    """
    _prepare_libraries()
    from potstill.recipes import evaluate as recipe

    recipe.evaluate(model_path, data, text_column, label_column, precision, gpt_variant, json)


def predict(
    sentences: Sentences = (),
    file: OptionalText = None,
    model_path: OptionalPath = None,
    precision: Literal["auto", "bf16", "fp32"] = "auto",
    gpt_variant: OptionalText = None,
    json: Switch = False,
) -> None:
    """Classify sentences: arguments, a file's lines, or standard input's.

    Args:
        sentences: Sentences, each in quotes. Without any, and without --file, standard input.
        file: A text file with a sentence a line; - for standard input.
        model_path: Folder of an adapter or a student. Default: the student trained last in runs/,
            else the one that came with potstill.
        precision: Arithmetic of a decoder.
        gpt_variant: An adapter's base. Default: the one it names.
        json: Print a JSON object a line instead of a table.
    """
    if sentences and file:
        raise UsageError("give sentences or --file, not both.")
    if not all(map(str.strip, sentences)):
        raise UsageError("one of the sentences is empty.")
    from potstill.recipes import predict as recipe

    texts = list(sentences) or recipe.read_sentences(file or "-")
    recipe.predict(texts, model_path, precision, gpt_variant, json, _prepare_libraries)


def export(
    model_path: OptionalPath = None,
    onnx_path: OptionalPath = None,
    int8: Switch = False,
) -> None:
    """Write a student as ONNX, for predict without torch and for other programs.

    Args:
        model_path: Folder of a student. Default: the student trained last in runs/.
        onnx_path: Folder to write to, with all that predict needs. Default: the student's own.
        int8: Keep the matrices as 8-bit integers: a quarter of the size.
    """
    _prepare_libraries()
    from potstill.recipes import export as recipe

    recipe.export(model_path, onnx_path, int8)


def _check_serial(SR: int) -> None:
    if not 0 <= SR < 2**32:
        raise UsageError(f"SR {SR} is out of range: it takes a whole number from 0 to 4294967295.")


def _prepare_libraries() -> None:
    """Keeps transformers' advice to programmers off the screen, and its bars for loading; and keeps
    threads from waiting for each other at full speed where another program wants the processor."""
    # Read when libgomp is loaded, with torch. Waiting in vain took all the time on shared cores.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    os.environ.setdefault("TQDM_DISABLE", "1")  # read when tqdm is imported
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from huggingface_hub.utils import enable_progress_bars
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    enable_progress_bars()  # the Hub's own: a download may take minutes
