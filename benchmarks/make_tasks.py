"""`potstill make`, scikit-learn and fastText on classification sets: a row for each.

    python benchmarks/make_tasks.py FOLDER [SET ...] --minutes 10

FOLDER has a folder for each set, with train.tsv, and dev.tsv or test.tsv; without SET all of them.
Each set is a process of its own, started as a user would; it is timed from start to end. Rows go to
--output as they come. Interrupted, the same command goes on. Where the package fasttext is
installed, fastText is trained on the same sentences with its autotune, for --fasttext_seconds.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from train_speed import machine

from potstill.data.corpus import Corpus, load_corpus
from potstill.data.splits import Split, hold_out
from potstill.files import write_json
from potstill.metrics import evaluation
from potstill.recipes._scoreboard import final_split

ROOT = Path(__file__).parents[1]
COLUMNS = ("accuracy", "macro_f1", "mcc", "ece", "megabytes", "sentences_per_second")


def made(folder: Path, minutes: float, runs: Path) -> dict[str, Any]:
    """Run `make` on a set; return its table, its plan and the minutes that it took."""
    output = runs / folder.name
    command = [sys.executable, str(ROOT / "run.py"), "make", str(folder)]
    command += ["--minutes", str(minutes), "--output", str(output)]
    # What an interrupted process took before is in make.json.
    file = output / "make.json"
    before = json.loads(file.read_text())["seconds"] if file.is_file() else 0.0
    started = time.perf_counter()
    log = runs / f"{folder.name}.log"
    with log.open("a") as out:
        subprocess.run(command, check=True, stdout=out, stderr=subprocess.STDOUT)
    seconds = before + time.perf_counter() - started
    state = json.loads(file.read_text())
    return {
        "minutes": {"asked": minutes, "taken": round(seconds / 60, 2)},
        "plan": state["plan"],
        "steps": {name: step["seconds"] for name, step in state["steps"].items()},
        "rows": state["rows"],
    }


def fasttext_row(corpus: Corpus, seconds: int) -> dict[str, Any] | None:
    """Return the row of fastText with autotune; None where it is not installed."""
    try:
        import fasttext
    except ModuleNotFoundError:
        return None
    train, held = hold_out(corpus.splits["train"], 0.1, seed=1)
    scored = corpus.splits[final_split(corpus)]
    with tempfile.TemporaryDirectory() as scratch:
        files = {}
        for name, split in (("train", train), ("held", held)):
            files[name] = str(Path(scratch, name))
            Path(files[name]).write_text(_fasttext_lines(split))
        model = fasttext.train_supervised(
            files["train"],
            autotuneValidationFile=files["held"],
            autotuneDuration=seconds,
            verbose=0,
        )
        saved = Path(scratch, "model.bin")
        model.save_model(str(saved))
        megabytes = saved.stat().st_size / 1e6
    texts = [" ".join(text.split()) for text in scored.sentences]
    classes = len(corpus.labels)
    started = time.perf_counter()
    # One at a time: its method for lists does not work with numpy 2.
    answers = [model.f.predict(text + "\n", classes, 0.0, "strict") for text in texts]
    speed = len(texts) / (time.perf_counter() - started)
    probabilities = np.full((len(texts), classes), 1e-12)
    for row, pairs in enumerate(answers):
        for probability, label in pairs:
            probabilities[row, int(label.removeprefix("__label__"))] = max(probability, 1e-12)
    scores = evaluation(np.log(probabilities), scored.labels)
    about = {"megabytes": megabytes, "sentences_per_second": speed}
    measures = {name: scores[name] for name in COLUMNS[:4]}
    return {"model": f"fastText, autotune {seconds} s"} | measures | about


def _fasttext_lines(split: Split) -> str:
    rows = zip(split.sentences, split.labels, strict=True)
    return "".join(f"__label__{label} {' '.join(text.split())}\n" for text, label in rows)


def print_set(name: str, result: dict[str, Any]) -> None:
    """Print the rows of a set as a table in Markdown."""
    minutes, plan = result["minutes"], result["plan"]
    transfer = plan["user"] + plan["sampled"] + plan["edited"]
    print(f"\n{name} ({result['split']}): {minutes['taken']:.1f} of {minutes['asked']:g} minutes; ")
    print(
        f"{plan['train']} sentences, teacher {plan['teacher_epochs']} epochs, transfer set "
        f"{transfer}, student {plan['student_epochs']} epochs"
    )
    print("\n| | accuracy | macro F1 | MCC | calibration error | MB | sentences/s |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for row in result["rows"]:
        size = "" if row["megabytes"] is None else f"{row['megabytes']:.1f}"
        speed = row["sentences_per_second"]
        rate = "" if speed is None else f"{speed:,.0f}"
        print(
            f"| {row['model']} | {100 * row['accuracy']:.1f} % | {row['macro_f1']:.3f} | "
            f"{row['mcc']:.3f} | {100 * row['ece']:.1f} % | {size} | {rate} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("sets", nargs="*", metavar="SET")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--fasttext_seconds", type=int, default=60)
    parser.add_argument("--runs", type=Path, default=Path("runs/make-tasks"))
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/make_tasks.json")
    args = parser.parse_args()
    names = args.sets or sorted(path.parent.name for path in args.folder.glob("*/train.tsv"))
    args.runs.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    if args.output.is_file():
        results = json.loads(args.output.read_text())["sets"]
    for name in names:
        done = results.get(name)
        if not done or done["minutes"]["asked"] != args.minutes:
            corpus = load_corpus(str(args.folder / name))
            result = made(args.folder / name, args.minutes, args.runs)
            if extra := fasttext_row(corpus, args.fasttext_seconds):
                result["rows"].insert(2, extra)
            results[name] = result | {"split": final_split(corpus), "machine": machine()}
            write_json(args.output, {"sets": results})
        print_set(name, results[name])


if __name__ == "__main__":
    main()
