"""The commands that use a model, and check: gen, evaluate, predict, report, export, serve."""

from potstill.cli.options import (
    AdapterVariant,
    DecoderPrecision,
    LabelledData,
    ModelPath,
    OptionalOutputPath,
    OptionalPath,
    Runs,
    ScoringData,
    Sentences,
    Serial,
    Variant,
    check_serial,
)
from potstill.errors import UsageError, UserError
from potstill.serving.settings import ServeSettings
from potstill.settings import (
    OptionalColumns,
    OptionalText,
    SamplingSettings,
    Switch,
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
    check_serial(SR)
    from potstill.recipes import gen as recipe

    recipe.generate(prompt, seed=SR, gpt_variant=gpt_variant, sampling=sampling)


def check(
    data: LabelledData,
    text_column: OptionalColumns = None,
    label_column: OptionalText = None,
    group_column: OptionalText = None,
    max_length: int = 128,
    json: Switch = False,
) -> None:
    """Look at labelled data before training: counts, lengths, and what is wrong with it.

    Args:
        label_column: Column (or JSON key) of the label. Default: label.
        group_column: Column of what rows that belong together have in common.
        max_length: Maximum number of tokens of a sentence; how many have more is counted.
        json: Print one JSON object instead.
    """
    from potstill.recipes import check as recipe

    report = recipe.check(
        data,
        text_column=text_column,
        label_column=label_column,
        group_column=group_column,
        max_length=max_length,
    )
    recipe.show(report, json)
    if report.refused:
        raise UserError(f"{report.name} can't be trained on as it is.")


def evaluate(
    model_path: ModelPath = None,
    gpt_variant: AdapterVariant = None,
    data: ScoringData = "auto",
    text_column: OptionalColumns = None,
    label_column: OptionalText = None,
    precision: DecoderPrecision = "auto",
    json: Switch = False,
) -> None:
    """Score a saved model on labelled data.

    Args:
        label_column: Column (or JSON key) of the label. Default: label.
        json: Print one JSON object instead of tables.
    """
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
    text_column: OptionalColumns = None,
    output: OptionalPath = None,
    threshold: OptionalText = None,
    json: Switch = False,
    tsv: Switch = False,
    explain: Switch = False,
) -> None:
    """Classify sentences from arguments, a file or standard input.

    Args:
        sentences: Sentences, each in quotes. Without any, --file or standard input is read.
        file: Text with a sentence per line, or a table (CSV, TSV, JSON lines, Parquet); - is
            standard input, the default.
        output: File for the answers; of a table, a copy with columns added. Default: print them.
        threshold: Answer unsure where the class has a lower probability; goal: than the threshold
            that was chosen in training.
        json: Write one JSON object per line.
        tsv: Write tab-separated columns.
        explain: Show the probability of the class after each word; * marks the decisive one, from
            which on the class is held.
    """
    if sentences and file:
        raise UsageError("give sentences or --file, not both.")
    if not all(map(str.strip, sentences)):
        raise UsageError("one of the sentences is empty.")
    from potstill.recipes import predict as recipe

    recipe.predict(
        list(sentences),
        file or "-",
        model_path,
        precision=precision,
        gpt_variant=gpt_variant,
        text_column=text_column,
        output=output,
        threshold=threshold,
        as_json=json,
        as_tsv=tsv,
        explain=explain,
    )


def report(
    runs: Runs = (),
    report_path: OptionalOutputPath = None,
) -> None:
    """Write one HTML file about a run, or about several side by side, with paired tests.

    Args:
        runs: Folders of runs, as LoRA, distil, rnn and average write them.
        report_path: The file. Default: report.html in the run's folder, of several runs here.
    """
    if not runs:
        raise UsageError("name the folder of a run, or of several.")
    from potstill.recipes import report as recipe

    recipe.report(list(runs), report_path)


def export(
    model_path: OptionalPath = None,
    onnx_path: OptionalOutputPath = None,
    int8: Switch = False,
    merged: Switch = False,
    data: str = "auto",
    text_column: OptionalColumns = None,
    label_column: OptionalText = None,
) -> None:
    """Write a student as ONNX, or a tuned decoder as an ordinary model of transformers.

    Args:
        model_path: Folder or Hub name of the model. Default: the newest student in runs/.
        onnx_path: Folder to write to. Default: the student's own; with --merged FOLDER-merged.
        int8: Store the matrices of ONNX as 8-bit integers, at a quarter of the size.
        merged: Write an adapter merged into its base, in fp32, for pipelines of transformers.
        data: Sentences that the exported student is compared on: a file, a folder, or auto: those
            that it was trained on.
        text_column: Column (or JSON key) of the text. Default: sentence or text.
        label_column: Column (or JSON key) of the label. Default: label.
    """
    from potstill.recipes import export as recipe

    recipe.export(
        model_path,
        onnx_path,
        data,
        int8=int8,
        merged=merged,
        text_column=text_column,
        label_column=label_column,
    )


def serve(
    model_path: ModelPath = None,
    teacher: OptionalPath = None,
    gpt_variant: AdapterVariant = None,
    precision: DecoderPrecision = "auto",
    serving: ServeSettings = ServeSettings(),
) -> None:
    """Serve a saved model over HTTP, with a page to try it on.

    Args:
        teacher: Folder of another model, such as the student's teacher, to show beside it.
    """
    from potstill.recipes import serve as recipe

    recipe.serve(
        model_path, teacher, settings=serving, precision=precision, gpt_variant=gpt_variant
    )
