"""The scores of an epoch, a run or several models, as lines and tables."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from potstill.data.splits import SPLIT_TITLES
from potstill.recipes.console import console, echo, format_count

EPOCH_HEADER = "epoch  split           loss  accuracy  majority     MCC"


def epoch_lines(record: dict[str, Any], majority: dict[str, float]) -> str:
    """Return a line for each split of an epoch; train is scored while the model learns it."""
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


def summary_lines(results: dict[str, Any]) -> str:
    """Return a run's scores by split: of the chosen epoch, and of the last if it is another."""
    last = results["last"]
    reason = (
        "by the MCC on held-out sentences"
        if "holdout" in last
        else "the last, as nothing is held out"
    )
    lines = [f"chosen epoch: {results['chosen_epoch']} of {last['epoch']} ({reason})"]
    unshifted = ", biases not shifted" if any(results["bias"]) else ""
    for split, scores in results["chosen"].items():
        line = f"  {SPLIT_TITLES[split]:<13} {_brief(scores)}"
        if results["chosen_epoch"] != last["epoch"]:
            line += f"; epoch {last['epoch']}{unshifted}: {_brief(last[split])}"
        lines.append(line)
    return "\n".join(lines)


def _brief(scores: dict[str, Any]) -> str:
    return f"accuracy {100 * scores['accuracy']:.2f} %, MCC {scores['mcc']:.4f}"


def comparison_table(title: str, rows: dict[str, dict[str, Any]]) -> None:
    """Print the scores of several models on dev and out of domain, the majority class last.

    Args:
        title: Title of the table.
        rows: For each model's name its "parameters" and its "scores", by split.
    """
    table = _table("", "parameters", "accuracy", "MCC [95 %]", title=title)
    first = next(iter(rows.values()))["scores"]
    for split in (s for s in ("dev", "ood") if s in first):
        table.add_row(f"[bold]{SPLIT_TITLES[split]}[/]")
        for name, row in rows.items():
            table.add_row(
                escape(name),
                format_count(row["parameters"]),
                f"{100 * row['scores'][split]['accuracy']:.2f} %",
                _mcc(row["scores"][split]),
            )
        majority = f"{100 * first[split]['majority']:.2f} %"
        table.add_row("majority class", "", majority, "0", end_section=True)
    console.print(table)


def _table(*columns: str, title: str | None = None) -> Table:
    """Return an empty table: names on the left, numbers right-justified."""
    table = Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for i, column in enumerate(columns):
        table.add_column(escape(column), justify="right" if i else "left")
    return table


def _mcc(scores: dict[str, Any]) -> str:
    low, high = scores["mcc_95"]
    return f"{scores['mcc']:.3f} [{low:.3f}, {high:.3f}]"


def evaluation_table(
    split: str, scores: dict[str, Any], labels: Sequence[str], grouped_by: str
) -> None:
    """Print one split's scores: accuracy, MCC, confusion counts, accuracy by group."""
    echo(f"{SPLIT_TITLES.get(split, split)}: {scores['sentences']} sentences")
    echo(
        f"  accuracy {100 * scores['accuracy']:.2f} % (majority class "
        f"{100 * scores['majority']:.2f} %), MCC {_mcc(scores)} (95 % interval)"
    )
    table = _table("true \\ predicted", *labels)
    for label, row in zip(labels, scores["confusion"], strict=True):
        table.add_row(escape(label), *map(str, row))
    console.print(table)
    if scores["groups"]:
        table = _table(grouped_by, "sentences", "accuracy", "majority")
        for name, group in scores["groups"].items():
            percentages = (f"{100 * group[key]:.1f} %" for key in ("accuracy", "majority"))
            table.add_row(escape(name), str(group["sentences"]), *percentages)
        console.print(table)
