"""The commands that train: make, LoRA, average, transfer, distil, rnn, pretrain."""

from pathlib import Path

from potstill.cli.options import (
    Adapters,
    AdapterVariant,
    DecoderPrecision,
    LabelledData,
    OptionalOutputPath,
    OptionalPath,
    OutputPath,
    ScoringData,
    Serial,
    TeacherPath,
    Variant,
    check_serial,
)
from potstill.errors import UsageError, check
from potstill.goals import parse_goal
from potstill.recipes.console import progress_bar
from potstill.settings import (
    DataSettings,
    DecisionSettings,
    DistilSettings,
    GeneralTextSettings,
    LoRASettings,
    NetworkSettings,
    OptionalColumns,
    OptionalInt,
    OptionalText,
    PretrainSettings,
    StudentSettings,
    Switch,
    TrainSettings,
)
from potstill.transfer.settings import TransferSettings


def make(
    data: LabelledData,
    minutes: float = 15.0,
    unlabelled: OptionalPath = None,
    goal: str = "none",
    gpt_variant: Variant = "auto",
    text_column: OptionalColumns = None,
    label_column: OptionalText = None,
    group_column: OptionalText = None,
    max_length: int = 128,
    seed: int = 1,
    make_path: OptionalOutputPath = None,
    fresh: Switch = False,
) -> None:
    """Turn labelled data into a small student, all steps in one, within so many minutes.

    Args:
        minutes: How long it may take; an estimate comes first.
        unlabelled: Text file with sentences of your own to learn from as well, one per line.
        goal: Goal of thresholds: none, mcc, accuracy, macro_f1, precision@R[:CLASS],
            recall@P[:CLASS].
        label_column: Column (or JSON key) of the label. Default: label.
        group_column: Column of what rows that belong together have in common.
        max_length: Maximum number of tokens of a sentence; longer ones are truncated.
        seed: Seeds everything, as SR does elsewhere.
        make_path: Folder for all that is made. Default: runs/make-NAME, after the data.
        fresh: Start anew where an unfinished or finished one would be continued.
    """
    check_serial(seed)
    check("minutes", minutes, minutes > 0, "more than 0")
    parse_goal(goal)
    from potstill.recipes import make as recipe

    recipe.make(
        data,
        minutes=minutes,
        unlabelled=unlabelled,
        goal=goal,
        seed=seed,
        base=gpt_variant,
        text_column=text_column,
        label_column=label_column,
        group_column=group_column,
        max_length=max_length,
        output=make_path,
        fresh=fresh,
        progress=progress_bar,
    )


def LoRA(
    SR: Serial,
    gpt_variant: Variant = "auto",
    lora: LoRASettings = LoRASettings(),
    data: DataSettings = DataSettings(),
    train: TrainSettings = TrainSettings(),
    decisions: DecisionSettings = DecisionSettings(),
    model_path: OptionalOutputPath = None,
    plots_path: Path = Path("plots"),
) -> None:
    """Tune the base decoder on labelled data with LoRA (low-rank adaptation).

    Args:
        model_path: Folder to write the adapter to. Default: runs/LoRA-SR.
        plots_path: Folder for lora_training_plot.png.
    """
    check_serial(SR)
    folder = model_path or Path(f"runs/LoRA-{SR}")
    from potstill.recipes import lora as recipe

    recipe.train_adapter(
        gpt_variant,
        data.data,
        seed=SR,
        lora=lora,
        data_settings=data,
        train=train,
        decisions=decisions,
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
    convert: Switch = False,
) -> None:
    """Make or extend a transfer set: unlabelled sentences with the teacher's logits.

    Args:
        unlabelled: Text file with sentences of your own to include, one per line.
        relabel: Folder of an earlier set; its sentences are reused, labelled by this teacher.
        transfer_path: Folder to write the set to. Default: runs/transfer-SR.
        show: Print this many sentences of a finished set instead of making one.
        convert: Convert a set of an earlier version, in its folder, instead of making one.
    """
    check_serial(SR)
    teacher = model_path or Path(f"runs/LoRA-{SR}")
    folder = transfer_path or Path(f"runs/transfer-{SR}")
    if show is not None:
        check("show", show, show >= 1, "1 or more")
    from potstill.recipes import transfer as recipe

    if show is not None:
        recipe.show_sentences(folder, show, SR)
        return
    if convert:
        recipe.convert(folder)
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
    train: TrainSettings = TrainSettings(),
    decisions: DecisionSettings = DecisionSettings(),
    student_path: OptionalOutputPath = None,
    plots_path: Path = Path("plots"),
) -> None:
    """Distil a tuned decoder into DistilRNN, by default on the data it was tuned on.

    Args:
        transfer_set: Folder of a transfer set to learn from as well.
        student_path: Folder to write the student to. Default: runs/distil-SR.
        plots_path: Folder for distilrnn_training_plot.png.
    """
    check_serial(SR)
    teacher = model_path or Path(f"runs/LoRA-{SR}")
    folder = student_path or Path(f"runs/distil-{SR}")
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
        decisions=decisions,
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
    train: TrainSettings = TrainSettings(),
    decisions: DecisionSettings = DecisionSettings(),
    student_path: OptionalOutputPath = None,
    plots_path: Path = Path("plots"),
) -> None:
    """Train the same student on the labels alone: the baseline without a teacher.

    Args:
        student_path: Folder to write the student to. Default: runs/rnn-SR.
        plots_path: Folder for rnn_training_plot.png.
    """
    check_serial(SR)
    folder = student_path or Path(f"runs/rnn-{SR}")
    from potstill.recipes import rnn as recipe
    from potstill.recipes._comparison import report

    recipe.train_baseline(
        data.data,
        seed=SR,
        student=student,
        pretraining=pretraining,
        data_settings=data,
        train=train,
        decisions=decisions,
        output=folder,
        plots_path=plots_path,
        progress=progress_bar,
    )
    report(folder, plots_path / "rnn_training_plot.png")


def pretrain(
    SR: Serial,
    gpt_variant: Variant = "auto",
    text: GeneralTextSettings = GeneralTextSettings(),
    network: NetworkSettings = NetworkSettings(dropout=0.1),
    train: TrainSettings = TrainSettings(warmup=0.03),
    base_path: OptionalOutputPath = None,
    text_path: OptionalPath = None,
) -> None:
    """Pretrain a student on general text of the base decoder, for --init of distil and rnn.

    Args:
        base_path: Folder to write the base to. Default: runs/base-SR.
        text_path: Folder of the sampled text, which is kept. Default: runs/text-SR.
    """
    check_serial(SR)
    from potstill.recipes import pretrain as recipe

    recipe.pretrain(
        SR,
        gpt_variant=gpt_variant,
        text=text,
        network=network,
        train=train,
        output=base_path or Path(f"runs/base-{SR}"),
        text_path=text_path or Path(f"runs/text-{SR}"),
        progress=progress_bar,
    )
