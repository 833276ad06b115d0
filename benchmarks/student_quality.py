"""How well students score over several seeds, and what contributes how much.

    python benchmarks/student_quality.py --teacher runs/LoRA-12345 \\
        --transfer_set runs/transfer-12345 --folder runs/quality

Each row is a recipe, trained with every seed by the command line; the epoch is chosen on a held-out
slice of train each time. The baseline learns from the labels only, for as many steps as the best
recipe. Runs that exist are not repeated, so that an interrupted benchmark continues. With
`--jobs 2` two run at a time, with one thread each. It takes hours on two cores.

Printed, and written as JSON and as a picture: the mean and the standard deviation over the seeds,
and how far each recipe is above the baseline, with a 95 % interval by the paired bootstrap:
sentences are drawn with replacement, the same for both, and each draw compares the means over the
seeds. Then the accuracy on each phenomenon of MiniCoLA, which none of them was trained on.
"""

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from student_recipes import CORPUS_ONLY, FRACTIONS, WHOLE, Recipe, recipes, train

from potstill import metrics
from potstill.data.corpus import Corpus, load_corpus
from potstill.data.splits import SPLIT_TITLES
from potstill.files import read_json, write_json
from potstill.inference.classifier import Classifier
from potstill.inference.load import load
from potstill.recipes._corpus import trained_on
from potstill.recipes._student import PRETRAIN_EPOCHS_WITH_SET

HERE = Path(__file__).parent
SPLITS = {name: SPLIT_TITLES[name] for name in ("dev", "ood")}
EPOCHS = 4
RESAMPLES = 10_000
GROUP_KEYS = ("sentences", "majority")  # of a phenomenon


def bootstrap(predictions: np.ndarray, baseline: np.ndarray, labels: np.ndarray) -> list[float]:
    """Return the 95 % interval of the difference of mean MCCs of two (seeds, N) predictions."""
    classes = int(labels.max()) + 1
    drawn = np.random.default_rng(0).multinomial(
        len(labels), np.full(len(labels), 1 / len(labels)), RESAMPLES
    )

    def mean_mcc(of_seeds: np.ndarray) -> np.ndarray:
        mccs = []
        for row in of_seeds:
            cells = np.eye(classes * classes)[labels * classes + row]  # (N, cells)
            mccs.append(metrics.mcc((drawn @ cells).reshape(-1, classes, classes)))
        return np.mean(mccs, axis=0)

    low, high = np.percentile(mean_mcc(predictions) - mean_mcc(baseline), [2.5, 97.5])
    return [float(low), float(high)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--transfer_set", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path("runs/quality"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="over CoLA and the whole set")
    parser.add_argument(
        "--pretrain_epochs",
        type=int,
        default=PRETRAIN_EPOCHS_WITH_SET,
        help="of the language model, where a student starts from random weights",
    )
    parser.add_argument("--only", nargs="+", default=[], help="names of recipes; by default all")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "student_quality.json")
    arguments, flags = parser.parse_known_args()
    teacher = load(arguments.teacher)
    corpus = load_corpus(trained_on(teacher))
    chosen = recipes(
        teacher=arguments.teacher,
        whole=arguments.transfer_set,
        folder=arguments.folder,
        epochs=arguments.epochs,
        pretrain_epochs=arguments.pretrain_epochs,
        n_labelled=len(corpus.splits["train"]),
        only=arguments.only,
    )
    pairs = [(recipe, seed) for seed in arguments.seeds for recipe in chosen]
    threads = max(1, torch.get_num_threads() // arguments.jobs)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        folders = list(
            pool.map(
                lambda pair: train(*pair, arguments.folder, flags=flags, threads=threads), pairs
            )
        )
    students = {
        recipe.name: [load(f) for (r, _), f in zip(pairs, folders, strict=True) if r is recipe]
        for recipe in chosen
    }
    biases: dict[str, list[np.ndarray]] = {recipe.name: [] for recipe in chosen}
    for (recipe, _), folder in zip(pairs, folders, strict=True):
        biases[recipe.name].append(np.array(read_json(folder / "results.json")["bias"]))
    report = summarise(corpus, teacher, chosen, students=students, biases=biases)
    report["phenomena"] = phenomena(teacher, students)
    print_table(report)
    print_phenomena(report["phenomena"])
    write_json(arguments.output, report)
    draw(report, arguments.output.with_suffix(".png"))


def summarise(
    corpus: Corpus,
    teacher: Classifier,
    chosen: list[Recipe],
    *,
    students: dict[str, list[Classifier]],
    biases: dict[str, list[np.ndarray]],
) -> dict[str, Any]:
    """Return the scores of every recipe's students on dev and out of domain, the interval of the
    difference from the baseline, and the scores without `biases`, the prevalence matching."""
    report: dict[str, Any] = {"data": corpus.describe(), "recipes": {}}
    for split in (s for s in SPLITS if s in corpus.splits):
        sentences, labels = corpus.splits[split].sentences, np.array(corpus.splits[split].labels)
        report[split] = {"sentences": len(labels), "majority": metrics.majority_share(labels)}
        report[split]["teacher"] = metrics.score(teacher.logits(sentences), labels)
        baseline: np.ndarray | None = None
        for recipe in chosen:
            logits = [student.logits(sentences) for student in students[recipe.name]]
            scores = [metrics.score(rows, labels) for rows in logits]
            predictions = np.stack([rows.argmax(1) for rows in logits])
            row = report["recipes"].setdefault(
                recipe.name,
                {
                    "command": " ".join(recipe.command),
                    "sentences": recipe.sentences,
                    "parameters": students[recipe.name][0].n_parameters,
                },
            )
            row[split] = {k: [s[k] for s in scores] for k in ("mcc", "accuracy")}
            pairs = zip(logits, biases[recipe.name], strict=True)
            unshifted = [metrics.score(rows - bias, labels) for rows, bias in pairs]
            row[split] |= {f"unshifted_{k}": [s[k] for s in unshifted] for k in ("mcc", "accuracy")}
            if recipe.command[0] == "rnn":
                baseline = predictions
            elif baseline is not None:
                row[split]["above_baseline_95"] = bootstrap(predictions, baseline, labels)
    return report


def phenomena(
    teacher: Classifier, students: dict[str, list[Classifier]]
) -> dict[str, dict[str, float]]:
    """Return for each phenomenon in MiniCoLA's dev and out-of-domain files the number of its
    sentences, the accuracy of the majority class and that of every recipe, as the mean over its
    seeds; nothing if the students know another task."""
    minicola = load_corpus("minicola")
    rows: dict[str, dict[str, float]] = {}
    if tuple(teacher.classes_) != minicola.labels:
        return rows
    for split in (minicola.splits[name] for name in SPLITS):
        for name, members in {**students, "teacher": [teacher]}.items():
            for member in members:
                logits = member.logits(split.sentences)
                groups = metrics.evaluation(logits, split.labels, split.sources)["groups"]
                for phenomenon, group in groups.items():
                    row = rows.setdefault(phenomenon, {key: group[key] for key in GROUP_KEYS})
                    row[name] = row.get(name, 0.0) + group["accuracy"] / len(members)
    return rows


def print_phenomena(rows: dict[str, dict[str, float]]) -> None:
    if not rows:
        return
    names = [name for name in next(iter(rows.values())) if name not in GROUP_KEYS]
    print(f"\n| MiniCoLA | sentences | majority | {' | '.join(names)} |")
    print("|---|" + "---:|" * (len(names) + 2))
    for phenomenon, row in rows.items():
        percentages = " | ".join(f"{100 * row[k]:.0f} %" for k in ("majority", *names))
        print(f"| {phenomenon} | {row['sentences']} | {percentages} |")


def print_table(report: dict[str, Any]) -> None:
    for split, title in SPLITS.items():
        if split not in report:
            continue
        print(
            f"\n| {title} | unlabelled sentences | accuracy | MCC | MCC above the baseline "
            "| accuracy, unshifted | MCC, unshifted |"
        )
        print("|---|---:|---:|---:|---:|---:|---:|")
        print(f"| majority class | | {100 * report[split]['majority']:.1f} % | 0 | | | |")
        for name, row in report["recipes"].items():
            scores = row[split]
            interval = scores.get("above_baseline_95")
            above = f"{interval[0]:+.3f} to {interval[1]:+.3f}" if interval else ""
            shifted, unshifted = (
                f"{100 * np.mean(scores[f'{key}accuracy']):.1f} % | {mean_of(scores[f'{key}mcc'])}"
                for key in ("", "unshifted_")
            )
            print(f"| {name} | {row['sentences'] or ''} | {shifted} | {above} | {unshifted} |")
        scores = report[split]["teacher"]
        print(f"| teacher | | {100 * scores['accuracy']:.1f} % | {scores['mcc']:.3f} | | | |")


def mean_of(values: list[float]) -> str:
    """Write the mean and, of several values, the standard deviation."""
    return f"{np.mean(values):.3f}" + (f" ± {spread(values):.3f}" if len(values) > 1 else "")


def spread(values: list[float]) -> float:
    """Return the standard deviation of a sample."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def draw(report: dict[str, Any], file: Path) -> None:
    """Draw the learning curve: MCC against the size of the transfer set."""
    from matplotlib import pyplot as plt

    names = [CORPUS_ONLY, *FRACTIONS, WHOLE]
    rows = [report["recipes"][name] for name in names if name in report["recipes"]]
    figure, axis = plt.subplots(figsize=(7, 4.5), layout="constrained")
    sizes = [row["sentences"] / 1000 for row in rows]
    for split, colour in (("dev", "#D55E00"), ("ood", "#009E73")):
        if split in report:
            means = [np.mean(row[split]["mcc"]) for row in rows]
            spreads = [spread(row[split]["mcc"]) for row in rows]
            axis.errorbar(
                sizes,
                means,
                spreads,
                color=colour,
                marker="o",
                capsize=3,
                label=SPLITS[split],
            )
    axis.axhline(0, color="black", linestyle="--", linewidth=1, label="majority class")
    axis.set_xlabel("sentences of the transfer set, thousands")
    several = any(len(row["dev"]["mcc"]) > 1 for row in rows)
    axis.set_ylabel(f"MCC, {'mean and standard deviation over seeds' if several else 'one seed'}")
    axis.grid(alpha=0.25)
    axis.legend(frameon=False)
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    main()
