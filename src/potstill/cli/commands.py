"""One function per command: its signature is the flags, its docstring the help.

Each function checks its arguments and calls the recipe of the same name. Heavy imports are inside
the functions, so that `--help` answers at once.
"""

import os
from pathlib import Path

from potstill.cli.options import (
    Adapters,
    AdapterVariant,
    DecoderPrecision,
    ModelPath,
    OptionalOutputPath,
    OptionalPath,
    OutputPath,
    ScoringData,
    Sentences,
    Serial,
    TeacherPath,
    Variant,
)
from potstill.errors import UsageError
from potstill.recipes.console import progress_bar
from potstill.settings import (
    DataSettings,
    DistilSettings,
    LoRASettings,
    OptionalInt,
    OptionalText,
    PretrainSettings,
    SamplingSettings,
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
    sampling: SamplingSettings = SamplingSettings(),
) -> None:
    """Continue a prompt with the base decoder.

    Args:
        prompt: Text to continue.
    """
    _check_serial(SR)
    _prepare_libraries()
    from potstill.recipes import gen as recipe

    recipe.generate(prompt, seed=SR, gpt_variant=gpt_variant, sampling=sampling)


def LoRA(
    SR: Serial,
    gpt_variant: Variant = "auto",
    lora: LoRASettings = LoRASettings(),
    data: DataSettings = DataSettings(),
    train: TrainSettings = TrainSettings(lr=6e-4),
    model_path: OptionalOutputPath = None,
    plots_path: Path = Path("plots"),
) -> None:
    """Tune the base decoder on labelled data with LoRA (low-rank adaptation).

    Args:
        model_path: Folder to write the adapter to. Default: runs/LoRA-SR.
        plots_path: Folder for lora_training_plot.png.
    """
    _check_serial(SR)
    folder = model_path or Path(f"runs/LoRA-{SR}")
    _prepare_libraries()
    from potstill.recipes import lora as recipe

    recipe.train_adapter(
        gpt_variant,
        data.data,
        seed=SR,
        lora=lora,
        data_settings=data,
        train=train,
        folder=folder,
        plots_path=plots_path,
        progress=progress_bar,
    )


def average(
    adapters: Adapters = (),
    gpt_variant: AdapterVariant = None,
    data: ScoringData = "auto",
    model_path: OutputPath = Path("runs/LoRA-average"),
) -> None:
    """Average adapters of several SRs into one, which can score better than each.

    Args:
        adapters: Folders of adapters that LoRA tuned from the same base on the same data.
        model_path: Folder to write the average to.
    """
    if len({adapter.resolve() for adapter in adapters}) < max(2, len(adapters)):
        raise UsageError("name two adapters or more, each once.")
    _prepare_libraries()
    from potstill.recipes import average as recipe

    recipe.average(list(adapters), data, gpt_variant=gpt_variant, folder=model_path)


def transfer(
    SR: Serial,
    model_path: TeacherPath = None,
    gpt_variant: AdapterVariant = None,
    transfer: TransferSettings = TransferSettings(),
    unlabelled: OptionalPath = None,
    relabel: OptionalPath = None,
    precision: DecoderPrecision = "auto",
    transfer_path: OptionalOutputPath = None,
    show: OptionalInt = None,
) -> None:
    """Make or extend a transfer set: unlabelled sentences with the teacher's logits.

    Args:
        unlabelled: Text file with sentences of your own to include, one per line.
        relabel: Folder of an earlier set; its sentences are reused, labelled by this teacher.
        transfer_path: Folder to write the set to. Default: runs/transfer-SR.
        show: Print this many sentences of a finished set instead of making one.
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
    recipe.make_transfer_set(
        SR,
        transfer,
        teacher_path=teacher,
        folder=folder,
        unlabelled=unlabelled,
        relabel=relabel,
        gpt_variant=gpt_variant,
        precision=precision,
    )


def distil(
    SR: Serial,
    model_path: TeacherPath = None,
    gpt_variant: AdapterVariant = None,
    transfer_set: OptionalPath = None,
    distillation: DistilSettings = DistilSettings(),
    student: StudentSettings = StudentSettings(),
    pretraining: PretrainSettings = PretrainSettings(),
    data: DataSettings = DataSettings(),
    train: TrainSettings = TrainSettings(batch_size=64),
    student_path: OptionalOutputPath = None,
    plots_path: Path = Path("plots"),
) -> None:
    """Distil a tuned decoder into DistilRNN, by default on the data it was tuned on.

    Args:
        transfer_set: Folder of a transfer set to learn from as well.
        student_path: Folder to write the student to. Default: runs/distil-SR.
        plots_path: Folder for distilrnn_training_plot.png.
    """
    _check_serial(SR)
    teacher = model_path or Path(f"runs/LoRA-{SR}")
    folder = student_path or Path(f"runs/distil-{SR}")
    _prepare_libraries()
    from potstill.recipes import distil as recipe
    from potstill.recipes._comparison import report

    recipe.distil(
        teacher,
        data.data,
        seed=SR,
        transfer_set=transfer_set,
        distillation=distillation,
        student=student,
        pretraining=pretraining,
        data_settings=data,
        train=train,
        gpt_variant=gpt_variant,
        output=folder,
        plots_path=plots_path,
        progress=progress_bar,
    )
    report(folder, plots_path / "distilrnn_training_plot.png")


def rnn(
    SR: Serial,
    student: StudentSettings = StudentSettings(),
    pretraining: PretrainSettings = PretrainSettings(),
    data: DataSettings = DataSettings(),
    train: TrainSettings = TrainSettings(batch_size=64),
    student_path: OptionalOutputPath = None,
    plots_path: Path = Path("plots"),
) -> None:
    """Train the same student on the labels alone: the baseline without a teacher.

    Args:
        student_path: Folder to write the student to. Default: runs/rnn-SR.
        plots_path: Folder for rnn_training_plot.png.
    """
    _check_serial(SR)
    folder = student_path or Path(f"runs/rnn-{SR}")
    _prepare_libraries()
    from potstill.recipes import rnn as recipe
    from potstill.recipes._comparison import report

    recipe.train_baseline(
        data.data,
        seed=SR,
        student=student,
        pretraining=pretraining,
        data_settings=data,
        train=train,
        output=folder,
        plots_path=plots_path,
        progress=progress_bar,
    )
    report(folder, plots_path / "rnn_training_plot.png")


def evaluate(
    model_path: ModelPath = None,
    gpt_variant: AdapterVariant = None,
    data: ScoringData = "auto",
    text_column: OptionalText = None,
    label_column: OptionalText = None,
    precision: DecoderPrecision = "auto",
    json: Switch = False,
) -> None:
    """Score a saved model on labelled data.

    Args:
        text_column: Column (or JSON key) of the text. Default: sentence or text.
        label_column: Column (or JSON key) of the label. Default: label.
        json: Print one JSON object instead of tables.
    """
    _prepare_libraries()
    from potstill.recipes import evaluate as recipe

    recipe.evaluate(
        model_path,
        data,
        text_column=text_column,
        label_column=label_column,
        precision=precision,
        gpt_variant=gpt_variant,
        as_json=json,
    )


def predict(
    sentences: Sentences = (),
    file: OptionalText = None,
    model_path: ModelPath = None,
    gpt_variant: AdapterVariant = None,
    precision: DecoderPrecision = "auto",
    json: Switch = False,
) -> None:
    """Classify sentences from arguments, a file or standard input.

    Args:
        sentences: Sentences, each in quotes. Without any, --file or standard input is read.
        file: Text file with one sentence per line; - is standard input.
        json: Print one JSON object per line instead of a table.
    """
    if sentences and file:
        raise UsageError("give sentences or --file, not both.")
    if not all(map(str.strip, sentences)):
        raise UsageError("one of the sentences is empty.")
    _prepare_libraries()
    from potstill.recipes import predict as recipe

    texts = list(sentences) or recipe.read_sentences(file or "-")
    recipe.predict(texts, model_path, precision=precision, gpt_variant=gpt_variant, as_json=json)


def export(
    model_path: OptionalPath = None,
    onnx_path: OptionalOutputPath = None,
    int8: Switch = False,
) -> None:
    """Write a student as ONNX, which predict and other programs run without torch.

    Args:
        model_path: Folder of a student. Default: the newest student in runs/.
        onnx_path: Folder to write the model and its other files to. Default: the student's own.
        int8: Store the matrices as 8-bit integers, at a quarter of the size.
    """
    _prepare_libraries()
    from potstill.recipes import export as recipe

    recipe.export(model_path, onnx_path, int8=int8)


def _check_serial(SR: int) -> None:
    if not 0 <= SR < 2**32:
        raise UsageError(f"SR {SR} is out of range: it takes a whole number from 0 to 4294967295.")


def _prepare_libraries() -> None:
    """Silence transformers' warnings and progress bars, and limit how long idle threads spin.

    The libraries read these variables when they are imported, which is later, if at all: an
    exported student needs none of them.
    """
    # libgomp reads it when torch is loaded. On shared cores, spinning took most of the time.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    os.environ.setdefault("TQDM_DISABLE", "1")  # not the Hub's bars: a download may take minutes
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
