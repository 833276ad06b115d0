"""The page of a report: what it shows of each run, and of several side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from potstill import __version__
from potstill.calibration import calibration_error
from potstill.data.splits import SPLIT_TITLES
from potstill.report.command import changed_settings, reproduction
from potstill.report.measures import (
    confident_mistakes,
    likely_label_errors,
    reliability_of_predictions,
)
from potstill.report.paired import compare
from potstill.report.predictions import Prediction
from potstill.report.run import RunRecord
from potstill.report.svg import Line, line_chart, reliability_chart
from potstill.report.words import Explain, pieces_of

CURVES = {"loss": "loss (nats)", "accuracy": "accuracy", "mcc": "Matthews correlation (MCC)"}
LISTED = 15  # mistakes and label errors of a split
MATRIX_CLASSES = 12  # with more, a confusion matrix is a list of the most frequent confusions
LISTED_GROUPS = 30
LISTED_CONFUSIONS = 20


def report_html(runs: Sequence[RunRecord], explain: Sequence[Explain | None]) -> str:
    """Return one page about one run or several; nothing in it is requested from elsewhere.

    Args:
        runs: The runs; the others are compared with the first.
        explain: For each run what judges the words of its sentences, if anything does.
    """
    environment = Environment(
        loader=PackageLoader("potstill.report", ""),
        autoescape=True,  # labels, file names and sentences are never markup
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": lambda x: f"{100 * x:.1f} %", "count": "{:,}".format}
    shown = [_describe_run(run, judge) for run, judge in zip(runs, explain, strict=True)]
    several = _describe_several(runs) if len(runs) > 1 else None
    title = shown[0]["title"] if len(shown) == 1 else f"{len(shown)} runs side by side"
    page = environment.get_template("report.html.j2")
    return page.render(title=title, runs=shown, several=several, version=__version__)


def _describe_run(run: RunRecord, explain: Explain | None) -> dict[str, Any]:
    scores = run.results["chosen"]
    return {
        "name": str(run.folder),
        "title": run.title,
        "scores": _score_rows(run),
        "charts": _charts(run),
        "legend": [SPLIT_TITLES.get(s, s) for s in _curve_splits(run)],
        "chosen_epoch": run.results.get("chosen_epoch"),
        "held_out": "holdout" in scores,
        "classes": [c for split in scores if (c := _classes(run, split))],
        "confusions": [_confusion(run, split) for split in scores],
        "explained": explain is not None,
        "splits": [
            _describe_split(split, found, explain) for split, found in run.predictions.items()
        ],
        "groups": [g for split in scores if (g := _groups(run, split))],
        "data": _data_facts(run),
        "model": _model_facts(run),
        "settings": _settings(run.config),
        "command": reproduction(run.config),
        "versions": run.config["versions"],
        "machine": run.config.get("machine", {}),
    }


def _score_rows(run: RunRecord) -> list[dict[str, Any]]:
    """Return a row for each split of the run itself, its teacher and the majority class."""
    rows = []
    teacher = run.config.get("teacher") or {}
    for split, scores in run.results["chosen"].items():
        title = SPLIT_TITLES.get(split, split)
        rows.append({"split": title, "model": "this run", "scores": scores})
        if split in teacher.get("scores", {}):
            about = {"split": "", "model": f"its teacher, {teacher['title']}"}
            rows.append(about | {"scores": teacher["scores"][split]})
    return rows


def _curve_splits(run: RunRecord) -> list[str]:
    return [split for split in SPLIT_TITLES if run.history and split in run.history[0]]


def _charts(run: RunRecord) -> list[tuple[str, Markup]]:
    charts = []
    for key, title in CURVES.items() if run.history else ():
        lines = [
            Line(SPLIT_TITLES[split], [(m["epoch"], m[split][key]) for m in run.history])
            for split in _curve_splits(run)
        ]
        references = []
        if key == "accuracy" and "dev" in run.results["chosen"]:
            references = [("majority class of dev", run.results["chosen"]["dev"]["majority"])]
        if key == "mcc":
            references = [("majority class", 0.0)]
        chosen = run.results.get("chosen_epoch")
        charts.append(
            (title, line_chart(lines, title=title, references=references, marked_x=chosen))
        )
    return charts


def _confusion(run: RunRecord, split: str) -> dict[str, Any]:
    """Return a confusion matrix with the share of each cell in its row, or of many classes the most
    frequent confusions."""
    labels, counts = run.config["labels"], run.results["chosen"][split]["confusion"]
    about = {"split": SPLIT_TITLES.get(split, split), "labels": labels}
    if len(labels) <= MATRIX_CLASSES:
        rows = [[(n, n / max(sum(row), 1)) for n in row] for row in counts]
        return about | {"rows": list(zip(labels, rows, strict=True)), "pairs": []}
    pairs = [
        {"label": labels[i], "predicted": labels[j], "count": n, "of": sum(row)}
        for i, row in enumerate(counts)
        for j, n in enumerate(row)
        if n and i != j
    ]
    pairs.sort(key=lambda pair: -pair["count"])
    return about | {"rows": [], "pairs": pairs[:LISTED_CONFUSIONS]}


def _classes(run: RunRecord, split: str) -> dict[str, Any] | None:
    """Return precision, recall, F1 and support of each class; None where the run has none."""
    scores = run.results["chosen"][split].get("classes")
    if not scores:
        return None
    columns = (scores[key] for key in ("precision", "recall", "f1", "support"))
    rows = sorted(zip(run.config["labels"], *columns, strict=True), key=lambda row: -row[-1])
    return {
        "split": SPLIT_TITLES.get(split, split),
        "rows": rows[:LISTED_GROUPS],
        "left_out": max(0, len(rows) - LISTED_GROUPS),
    }


def _describe_split(
    split: str, predictions: list[Prediction], explain: Explain | None
) -> dict[str, Any]:
    bins, title = reliability_of_predictions(predictions), SPLIT_TITLES.get(split, split)
    errors = likely_label_errors(predictions)
    mistakes = confident_mistakes(predictions, LISTED)
    listed = [p.text for p in mistakes] + [e.prediction.text for e in errors[:LISTED]]
    return {
        "title": title,
        "sentences": len(predictions),
        "ece": calibration_error(bins),
        "reliability": reliability_chart(bins, title=f"reliability, {title}"),
        "wrong": sum(p.predicted != p.label for p in predictions),
        "mistakes": mistakes,
        "pieces": pieces_of(listed, explain),
        "n_errors": len(errors),
        "errors": errors[:LISTED],
    }


def _groups(run: RunRecord, split: str) -> dict[str, Any] | None:
    groups = run.results["chosen"][split]["groups"]
    if not groups:
        return None
    kind = "phenomenon" if run.config["data"]["name"] == "MiniCoLA" else "source"
    rows = sorted(groups.items(), key=lambda item: -item[1]["sentences"])
    return {
        "split": SPLIT_TITLES.get(split, split),
        "kind": kind,
        "rows": rows[:LISTED_GROUPS],
        "left_out": max(0, len(rows) - LISTED_GROUPS),
    }


def _data_facts(run: RunRecord) -> dict[str, str]:
    data = run.config["data"]
    sizes = ", ".join(f"{SPLIT_TITLES.get(k, k)} {n:,}" for k, n in data["sentences"].items())
    facts = {"name": data["name"], "read from": data["path"], "sentences": sizes}
    facts["classes"] = f"{len(run.config['labels'])}: " + ", ".join(run.config["labels"][:40])
    facts["SHA-256"] = data["sha256"]
    return facts


def _model_facts(run: RunRecord) -> dict[str, str]:
    config, facts = run.config, {}
    parameters = config.get("parameters", {})
    if "total" in parameters:
        facts["parameters"] = f"{parameters['total']:,}"
        if parameters.get("trainable") not in (None, parameters["total"]):
            facts["trained"] = f"{parameters['trainable']:,}"
    if calibration := config.get("calibration"):
        facts["temperature"] = f"{calibration['temperature']:.3f}, fitted on held-out sentences"
    for name, size in run.sizes.items():
        facts[name] = f"{size / 1e6:,.2f} MB"
    if run.history:
        seconds = sum(m["seconds"] for m in run.history)
        speeds = [m["sentences_per_second"] for m in run.history]
        facts["training"] = f"{len(run.history)} epochs, {seconds:,.0f} s"
        facts["speed"] = f"{sum(speeds) / len(speeds):,.0f} sentences/s in training"
    if "decoder" in config:
        facts["base"] = f"{config['decoder']['title']}, weights {config['decoder']['sha256'][:12]}"
    if teacher := config.get("teacher"):
        facts["teacher"] = f"{teacher['title']}, {teacher['parameters']:,} parameters"
    if "transfer_set" in config:
        counts = config["transfer_set"]["sentences"]
        facts["transfer set"] = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    return facts


def _settings(config: dict[str, Any]) -> list[tuple[str, Any, bool]]:
    changed = changed_settings(config)
    shown = {k: v for k, v in config["settings"].items() if v is not None}
    return [(name, value, name in changed) for name, value in shown.items()]


def _describe_several(runs: Sequence[RunRecord]) -> dict[str, Any]:
    """Return what the page says of several runs together."""
    names = _short_names([run.folder for run in runs])
    keys = sorted({key for run in runs for key in run.config["settings"]})
    rows = [(key, [run.config["settings"].get(key, "") for run in runs]) for key in keys]
    splits = [s for s in SPLIT_TITLES if any(s in run.results["chosen"] for run in runs)]
    curves = []
    for split in ("dev", "holdout"):
        lines = [
            Line(name, [(m["epoch"], m[split]["mcc"]) for m in run.history if split in m])
            for run, name in zip(runs, names, strict=True)
        ]
        if all(line.points for line in lines):
            title = f"MCC, {SPLIT_TITLES[split]}"
            curves.append((title, line_chart(lines, title=title, references=[("0", 0.0)])))
    return {
        "names": names,
        "titles": [run.title for run in runs],
        "parameters": [run.config.get("parameters", {}).get("total", 0) for run in runs],
        "scores": [
            (SPLIT_TITLES[split], [run.results["chosen"].get(split) for run in runs])
            for split in splits
        ],
        "pairs": [
            {"first": names[0], "other": name} | _compared(runs[0], run, split)
            for run, name in zip(runs[1:], names[1:], strict=True)
            for split in splits
        ],
        "curves": curves,
        "differences": [(key, values) for key, values in rows if len(set(map(str, values))) > 1],
    }


def _short_names(folders: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the paths that tell them apart; what is equal stays whole."""
    for length in range(1, max(len(folder.parts) for folder in folders)):
        names = ["/".join(folder.parts[-length:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def _compared(first: RunRecord, other: RunRecord, split: str) -> dict[str, Any]:
    """Return the paired test of two runs on a split, or why there is none."""
    about = {
        "split": SPLIT_TITLES[split],
        "test": None,
        "reason": "",
    }
    a, b = first.predictions.get(split), other.predictions.get(split)
    if not a or not b:
        return about | {"reason": "one of the runs recorded no predictions there"}
    if [(p.text, p.label) for p in a] != [(p.text, p.label) for p in b]:
        return about | {"reason": "they were scored on other sentences"}
    names = sorted({p.label for p in a} | {x.predicted for x in (*a, *b)})
    index = {name: i for i, name in enumerate(names)}
    test = compare(
        [index[p.label] for p in a],
        [index[p.predicted] for p in a],
        [index[p.predicted] for p in b],
        len(names),
    )
    return about | {"test": test}
