"""Students of many kinds of tasks, compared with their teachers and what a user would take instead.

    python benchmarks/tasks.py ../shared/tasks --folder runs/tasks [--only trec6 sst2]
        [--sizes 0 1000 300] [--seeds 1 2 3] [--sampled 15000] [--edited 15000]

Every folder of the first argument is a task: train.tsv and test.tsv, with a header of sentence and
label. Of each and of each number of training sentences (0: all) it runs, with every default,

- the teacher: `potstill LoRA`, one seed;
- the student without a transfer set and with one, and the student without a teacher, several seeds;
- TF-IDF of words 1 to 2 and characters 2 to 5 with logistic regression, of scikit-learn;
- fastText with its autotune, where the package fasttext-wheel is installed.

test.tsv is scored only: epochs are chosen on a slice held out of train, as always, and so are
scikit-learn's C and fastText's settings. Scores that --output has, and runs that are in --folder,
are not made again, so that the same command goes on after an interruption. It takes hours on two
cores.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline, make_union

from potstill.files import read_json, write_json

HERE = Path(__file__).parent
STUDENTS = {
    "student": "distil",
    "student, transfer set": "distil",
    "student without a teacher": "rnn",
}
ROWS = ("majority", "teacher", *STUDENTS, "TF-IDF + LR", "fastText")
Texts = tuple[list[str], list[str]]  # sentences and their labels


def read(file: Path) -> Texts:
    """Return the sentences and labels of a file in its order."""
    lines = file.read_text(encoding="utf-8").splitlines()[1:]
    rows = [line.split("\t") for line in lines if line.strip()]
    return [row[0] for row in rows], [row[1] for row in rows]


def subset(train: Texts, size: int) -> Texts:
    """Return `size` of the sentences, stratified, the same ones each time; all if it is 0."""
    sentences, labels = train
    if not size or size >= len(sentences):
        return train
    counts = {label: labels.count(label) for label in set(labels)}
    enough = size >= len(counts) and min(counts.values()) > 1
    kept, _ = train_test_split(
        np.arange(len(labels)),
        train_size=size,
        random_state=0,
        stratify=labels if enough else None,
    )
    return [sentences[i] for i in sorted(kept)], [labels[i] for i in sorted(kept)]


def write_task(folder: Path, train: Texts, test: Texts) -> None:
    """Write a task as potstill reads it: what is scored is dev, by which nothing is chosen."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (sentences, labels) in (("train", train), ("dev", test)):
        lines = [f"{s}\t{label}" for s, label in zip(sentences, labels, strict=True)]
        (folder / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n")


def accuracy(predicted: list[str], test: Texts) -> float:
    return float(np.mean(np.array(predicted) == np.array(test[1])))


def majority(train: Texts, test: Texts) -> float:
    most = max(sorted(set(train[1])), key=train[1].count)
    return accuracy([most] * len(test[1]), test)


def tf_idf(train: Texts, test: Texts) -> float:
    """Return the accuracy of TF-IDF + logistic regression, C chosen by cross-validation."""
    features = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True),
    )
    folds = 3 if min(train[1].count(label) for label in set(train[1])) >= 3 else 2
    classifier = LogisticRegressionCV(
        Cs=[1.0, 10.0, 100.0],
        cv=folds,
        max_iter=300,
        l1_ratios=(0.0,),
        scoring="accuracy",
        use_legacy_attributes=False,
    )
    model = make_pipeline(features, classifier).fit(*train)
    return accuracy(list(model.predict(test[0])), test)


def fast_text(train: Texts, test: Texts, seconds: int) -> float | None:
    """Return the accuracy of fastText; None where it is not installed."""
    if importlib.util.find_spec("fasttext") is None:
        return None
    import fasttext

    def lines(texts: Texts, numbers: list[int]) -> str:
        return "".join(
            f"__label__{texts[1][i].replace(' ', '_')} {texts[0][i].lower()}\n" for i in numbers
        )

    held, kept = [], []
    for i in range(len(train[1])):
        (held if i % 10 == 0 else kept).append(i)
    with tempfile.TemporaryDirectory() as scratch:
        parts = {"train": kept, "valid": held}
        files = {name: Path(scratch) / name for name in parts}
        for name, numbers in parts.items():
            files[name].write_text(lines(train, numbers))
        model = fasttext.train_supervised(
            str(files["train"]),
            autotuneValidationFile=str(files["valid"]),
            autotuneDuration=seconds,
            verbose=0,
        )
        # Called by itself: its own `predict` fails with numpy 2.
        answers = model.f.multilinePredict([f"{s.lower()}\n" for s in test[0]], 1, 0.0, "strict")[0]
    predicted = [answer[0].removeprefix("__label__") for answer in answers]
    return accuracy(predicted, (test[0], [label.replace(" ", "_") for label in test[1]]))


def potstill(command: list[str], folder: Path, result: Path) -> None:
    """Run a command unless its result is there; what it prints goes beside it."""
    if result.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{result.parent.name}-{result.stem}.log"
    with log.open("w") as file:
        environment = {**os.environ, "NO_COLOR": "1"}
        subprocess.run(
            [sys.executable, "-m", "potstill", *command],
            check=True,
            stdout=file,
            stderr=file,
            env=environment,
        )
    print(f"done: {result.parent}", file=sys.stderr, flush=True)


def run_task(
    folder: Path, *, seeds: list[int], sampled: int, edited: int
) -> Iterator[tuple[str, list[float]]]:
    """Yield the accuracies of the teacher and then of the students of a task in `folder`/data, by
    the name of their row."""
    data, teacher, transfer = folder / "data", folder / "teacher", folder / "transfer"

    def run(name: str, command: str, seed: int, *flags: object) -> float:
        target = folder / name
        words = [command, str(seed), "--data", str(data), "--output", str(target)]
        words += ["--plots_path", str(folder / "plots" / name), *map(str, flags)]
        potstill(words, folder, target / "results.json")
        return read_json(target / "results.json")["chosen"]["dev"]["accuracy"]

    yield "teacher", [run("teacher", "LoRA", 1)]
    words = ["transfer", "1", "--teacher", str(teacher), "--output", str(transfer)]
    words += ["--sampled", str(sampled), "--edited", str(edited)]
    potstill(words, folder, transfer / "transfer.json")
    for row, command in STUDENTS.items():
        flags: list[object] = ["--teacher", teacher] if command == "distil" else []
        if row == "student, transfer set":
            flags += ["--transfer_set", transfer]
        stem = row.replace(", ", "-").replace(" ", "-")
        yield row, [run(f"{stem}-{seed}", command, seed, *flags) for seed in seeds]


def cell(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.3f}"
    return f"{mean} ± {statistics.stdev(values):.3f}" if len(values) > 1 else mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", type=Path, help="folder of the tasks")
    parser.add_argument("--folder", type=Path, default=Path("runs/tasks"), help="of the runs")
    parser.add_argument("--only", nargs="+", default=[], help="tasks; by default all with a test")
    parser.add_argument("--sizes", nargs="+", type=int, default=[0, 1000, 300])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--sampled", type=int, default=15_000)
    parser.add_argument("--edited", type=int, default=15_000)
    parser.add_argument("--autotune", type=int, default=60, help="seconds of fastText's autotune")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "tasks.json")
    args = parser.parse_args()
    names = args.only or sorted(f.parent.name for f in args.tasks.glob("*/test.tsv"))
    found: dict[str, dict[str, list[float]]] = {}
    if args.output.is_file():
        found = json.loads(args.output.read_text())
    rivals: dict[str, Callable[[Texts, Texts], float | None]] = {
        "majority": majority,
        "TF-IDF + LR": tf_idf,
        "fastText": lambda train, test: fast_text(train, test, args.autotune),
    }
    for size in args.sizes:
        for name in names:
            train = subset(read(args.tasks / name / "train.tsv"), size)
            test = read(args.tasks / name / "test.tsv")
            key, folder = f"{name}, {len(train[0])}", args.folder / f"{name}-{len(train[0])}"
            write_task(folder / "data", train, test)
            scores = found.setdefault(key, {})
            for row, rival in rivals.items():
                if row not in scores and (value := rival(train, test)) is not None:
                    scores[row] = [value]
            write_json(args.output, found)
            if all(len(scores.get(row, ())) >= len(args.seeds) for row in STUDENTS):
                continue
            sizes = {"sampled": args.sampled, "edited": args.edited}
            for row, values in run_task(folder, seeds=args.seeds, **sizes):
                scores[row] = values
                write_json(args.output, found)
    print("| task, training sentences | " + " | ".join(ROWS) + " |")
    print("|---|" + "---:|" * len(ROWS))
    for key, scores in found.items():
        cells = [cell(scores[row]) if row in scores else "–" for row in ROWS]
        print(f"| {key} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
