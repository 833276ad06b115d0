"""What the commands print: the lines of a training run, and tables of scores."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from potstill.metrics import majority_share

SPLIT_TITLES = {"train": "train", "holdout": "held out", "dev": "dev", "ood": "out of domain"}
EPOCH_HEADER = "epoch  on              loss  accuracy  majority     MCC"

# Of several processes only the first speaks.
console = Console(highlight=False, soft_wrap=True, quiet=os.environ.get("RANK", "0") != "0")


def say(text: str = "") -> None:
    """Prints one line as it is."""
    console.print(text, markup=False)


def count(parameters: int) -> str:
    """125031168 as 125.03M."""
    if parameters >= 10_000:
        return f"{parameters / 1e6:.2f}M"
    return str(parameters)


def parameter_line(total: int, trainable: int) -> str:
    return (
        f"parameters: {count(total)} in all, {count(trainable)} trainable "
        f"({100 * (1 - trainable / total):.1f} % fewer)"
    )


@contextmanager
def progress_bar(sentences: int) -> Iterator[Callable[[int, str], None]]:
    """A bar with sentences a second and the time left; yields show(sentences done, what)."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[rate]:.0f} sentences/s,"),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=console,
        transient=True,
    )
    task = bar.add_task("", total=sentences, rate=0.0)
    started = time.perf_counter()
    first: list[int] = []

    def show(done: int, what: str) -> None:
        # A resumed run starts in the middle: the rate counts from there.
        first[:] = first or [done]
        rate = (done - first[0]) / (time.perf_counter() - started)
        bar.update(task, completed=done, description=what, rate=rate)

    with bar:
        yield show


def majorities(labels_by_split: dict[str, list[int]]) -> dict[str, float]:
    return {name: majority_share(labels) for name, labels in labels_by_split.items()}


def epoch_lines(record: dict[str, Any], majority: dict[str, float]) -> str:
    """A line for each split of an epoch's record; train is scored while it learns."""
    lines = []
    for split, title in SPLIT_TITLES.items():
        if split not in record:
            continue
        number = f"{record['epoch']:5d}" if split == "train" else " " * 5
        scores = record[split]
        line = (
            f"{number}  {title:<13}{scores['loss']:7.4f}{100 * scores['accuracy']:8.2f} %"
            f"{100 * majority[split]:8.2f} %{scores['mcc']:8.4f}"
        )
        if split == "train":
            line += (
                f"   {record['seconds']:.0f} s, {record['sentences_per_second']:.0f} sentences/s"
            )
        lines.append(line)
    return "\n".join(lines)


def scores_cells(scores: dict[str, Any] | None) -> list[str]:
    """Accuracy and MCC with its interval, for a table."""
    if scores is None:
        return ["", ""]
    low, high = scores["mcc_95"]
    return [
        f"{100 * scores['accuracy']:.2f} %",
        f"{scores['mcc']:.4f} [{low:.3f}, {high:.3f}]",
    ]


def comparison_table(title: str, rows: dict[str, dict[str, Any]]) -> None:
    """Prints models one under another: parameters, accuracy and MCC on every split they have.

    rows: by name, "parameters" (or None) and "scores", by split.
    """
    splits = [s for s in SPLIT_TITLES if any(s in row["scores"] for row in rows.values())]
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("")
    table.add_column("parameters", justify="right")
    for split in splits:
        table.add_column(f"{SPLIT_TITLES[split]}\naccuracy", justify="right")
        table.add_column(f"{SPLIT_TITLES[split]}\nMCC [95 %]", justify="right")
    for name, row in rows.items():
        parameters = row["parameters"]
        cells = [name, "" if parameters is None else count(parameters)]
        for split in splits:
            cells += scores_cells(row["scores"].get(split))
        table.add_row(*cells)
    console.print(table)


def evaluation_table(title: str, result: dict[str, Any], labels: list[str]) -> None:
    """Prints one split's scores: accuracy, MCC, confusion counts, accuracy by group."""
    accuracy, mcc = scores_cells(result)
    say(f"{title}: {result['sentences']} sentences")
    say(f"  accuracy {accuracy} (majority class {100 * result['majority']:.2f} %), MCC {mcc}")
    table = Table("is \\ called", *labels)
    for label, row in zip(labels, result["confusion"], strict=True):
        table.add_row(label, *map(str, row))
    console.print(table)
    if result["groups"]:
        table = Table(result["grouped_by"], "sentences", "accuracy", "majority")
        for name, group in result["groups"].items():
            shares = (f"{100 * group[key]:.1f} %" for key in ("accuracy", "majority"))
            table.add_row(name, str(group["sentences"]), *shares)
        console.print(table)
