"""The scores of an epoch, a run or several models, as lines and tables."""

import logging
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table

from potstill.data.splits import SPLIT_TITLES
from potstill.recipes.console import as_is, console, echo, format_count

MOST_LINES = 12  # of a table with a line for each class
EPOCH_HEADER = "epoch  split           loss  accuracy  majority     MCC"

logger = logging.getLogger(__name__)


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


def shortened(texts: Sequence[str], most: int = 8) -> str:
    """Return `texts` with commas between them, of more than `most` the first ones and how many
    more there are."""
    more = len(texts) - most
    return ", ".join(texts[:most]) + (f" and {more} more" if more > 0 else "")


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
                as_is(name),
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
        title=as_is(title) if title else None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for i, column in enumerate(columns):
        table.add_column(as_is(column), justify="right" if i else "left", no_wrap=True)
    return table


def _mcc(scores: dict[str, Any]) -> str:
    low, high = scores["mcc_95"]
    return f"{scores['mcc']:.3f} [{low:.3f}, {high:.3f}]"


def evaluation_table(
    split: str, scores: dict[str, Any], labels: Sequence[str], grouped_by: str
) -> None:
    """Print one split's scores: accuracy, MCC, macro F1, those of each class, confusion counts,
    accuracy by group."""
    echo(f"{SPLIT_TITLES.get(split, split)}: {scores['sentences']} sentences")
    echo(
        f"  accuracy {100 * scores['accuracy']:.2f} % (majority class "
        f"{100 * scores['majority']:.2f} %), MCC {_mcc(scores)} (95 % interval), macro F1 "
        f"{scores['macro_f1']:.3f}"
    )
    echo(f"  expected calibration error {100 * scores['ece']:.2f} %")
    if answered := scores.get("answered"):
        right = f"{100 * answered['accuracy']:.2f} %" if answered["accuracy"] is not None else "-"
        echo(
            f"  from probability {answered['threshold']:.3f} on: "
            f"{100 * answered['fraction']:.2f} % answered, {right} of these right"
        )
    names = [_short(label) for label in labels]
    table = _table("true \\ predicted", *names)
    for name, row in zip(names, scores["confusion"], strict=True):
        table.add_row(as_is(name), *map(str, row))
    fits = len(labels) <= MOST_LINES and _width(table) <= console.width
    if fits:
        console.print(table)
    _class_table(names, scores["classes"])
    if not fits:
        _print_confusions(names, scores["confusion"])
    if scores["groups"]:
        table = _table(grouped_by, "sentences", "accuracy", "majority")
        for name, group in scores["groups"].items():
            percentages = (f"{100 * group[key]:.1f} %" for key in ("accuracy", "majority"))
            table.add_row(as_is(name), str(group["sentences"]), *percentages)
        console.print(table)


def _class_table(names: Sequence[str], scores: dict[str, list[float]]) -> None:
    """Print precision, recall, F1 and sentences of the classes, of many the worst that occur."""
    table = _table("class", "precision", "recall", "F1", "sentences")
    order = list(range(len(names)))
    if len(names) > MOST_LINES:
        occurring = [i for i in order if scores["support"][i]]
        order = sorted(occurring, key=lambda i: scores["f1"][i])[:MOST_LINES]
    for i in order:
        numbers = (f"{scores[key][i]:.3f}" for key in ("precision", "recall", "f1"))
        table.add_row(as_is(names[i]), *numbers, str(scores["support"][i]))
    console.print(table)
    if len(order) < len(names):
        logger.info(f"the {len(order)} of {len(names)} classes with the lowest F1; `json` has all")


def _print_confusions(names: Sequence[str], confusion: list[list[int]]) -> None:
    """Print the most frequent confusions, where a table of all pairs would be too wide."""
    pairs = [
        (count, i, j)
        for i, row in enumerate(confusion)
        for j, count in enumerate(row)
        if count and i != j
    ]
    table = _table("most often confused: true", "predicted", "sentences")
    for count, i, j in sorted(pairs, key=lambda pair: (-pair[0], *pair[1:]))[:MOST_LINES]:
        table.add_row(as_is(names[i]), as_is(names[j]), str(count))
    if pairs:
        console.print(table)


def _width(table: Table) -> int:
    """Return how wide a table would be if there were room for it."""
    return console.measure(table, options=console.options.update(width=10_000)).maximum


def _short(label: str, most: int = 24) -> str:
    """Return a label that leaves room for others."""
    return label if len(label) <= most else f"{label[: most - 1]}…"
