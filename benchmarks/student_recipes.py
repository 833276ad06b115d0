"""The rows of student_quality.py, and how each is trained."""

import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from potstill.files import write_json
from potstill.recipes._student import EPOCHS
from potstill.transfer.dataset import Selection, read_transfer_set
from potstill.transfer.sentences import SourceKind
from potstill.transfer.shards import DESCRIPTION, SHARD_SIZE, VOCABULARY, list_shards

BASELINE, CORPUS_ONLY, WHOLE = "baseline without a teacher", "CoLA only", "the whole set"
FRACTIONS = {f"{part:g} of the set": part for part in (0.25, 0.5)}  # for the learning curve
# Rows with a part of the set: its fraction, and the kinds of sentences it has.
PARTS = {name: (fraction, tuple(SourceKind)) for name, fraction in FRACTIONS.items()}
PARTS |= {str(kind): (1.0, (kind,)) for kind in (SourceKind.SAMPLED, SourceKind.EDITED)}
# Rows with the whole set, and their flags. The others start from DistilRNN-base.
RANDOM = ["--init", "none"]
VARIANTS = {
    "random weights, no language model": [*RANDOM, "--pretrain_epochs", "0"],
    "random weights, hard LM targets": [*RANDOM, "--pretrain_targets", "hard"],
    "random weights, language model": RANDOM,
    "sentence-level only": ["--word_loss_weight", "0"],
    WHOLE: [],
}
ROWS = [BASELINE, CORPUS_ONLY, *PARTS, *VARIANTS]


@dataclass(frozen=True)
class Recipe:
    """A row: its name, the command with the flags that trains it, and the number of sentences in
    its transfer set."""

    name: str
    command: list[str]
    sentences: int = 0


def part_of(whole: Path, target: Path, fraction: float, kinds: tuple[SourceKind, ...]) -> Selection:
    """Make a transfer set of a fraction of another's shards of some `kinds`; return its
    sentences."""
    description = json.loads((whole / DESCRIPTION).read_text())
    capacity = description.get("shard_size", SHARD_SIZE)
    for kind, total in description["sentences"].items():
        number = math.ceil(fraction * total / capacity) if kind in kinds else 0
        description["sentences"][kind] = min(total, number * capacity)
    files = [whole / VOCABULARY, *(shard.path for shard in list_shards(whole, description))]
    target.mkdir(parents=True, exist_ok=True)
    for file in files:
        if file.exists() and not (target / file.name).exists():
            os.link(file, target / file.name)
    write_json(target / DESCRIPTION, description)
    return read_transfer_set(target).select(without=[])


def recipes(
    *,
    teacher: Path,
    whole: Path,
    folder: Path,
    epochs: int,
    pretrain_epochs: int,
    n_labelled: int,
    only: list[str],
) -> list[Recipe]:
    """Return the recipes named `only`, or all.

    Args:
        teacher: Folder of the adapter.
        whole: Folder of the transfer set.
        folder: Where transfer sets with a part of it are made.
        epochs: Over the labelled sentences and the whole set. It determines the number of steps,
            which is the same for every recipe that has a part of the set.
        pretrain_epochs: Of the language model, for students that start from random weights.
        n_labelled: Number of labelled sentences.
    """
    if unknown := set(only) - set(ROWS):
        raise SystemExit(f"--only: there is no row {sorted(unknown)[0]!r} among {', '.join(ROWS)}.")
    distil = ["distil", "--model_path", str(teacher)]
    whole_set = read_transfer_set(whole).select(without=[])
    steps = epochs * (n_labelled + len(whole_set))

    def recipe(name: str) -> Recipe:
        if name == BASELINE:
            return Recipe(name, ["rnn", "--epochs", str(round(steps / n_labelled))])
        if name == CORPUS_ONLY:
            return Recipe(name, [*distil, "--epochs", str(EPOCHS)])
        part_folder, part = whole, whole_set
        if name in PARTS:
            part_folder = folder / "sets" / name.replace(" ", "-")
            part = part_of(whole, part_folder, *PARTS[name])
        n_unlabelled = len(part)
        part_epochs = str(round(steps / (n_labelled + n_unlabelled)))
        command = [*distil, "--transfer_set", str(part_folder), "--epochs", part_epochs]
        own = VARIANTS.get(name, [])
        if own[:2] == RANDOM:
            command += ["--pretrain_epochs", str(pretrain_epochs)]
        return Recipe(name, command + own, n_unlabelled)

    return [recipe(name) for name in ROWS if not only or name in only]


def train(recipe: Recipe, seed: int, folder: Path, *, flags: list[str], threads: int) -> Path:
    """Train one student by the command line, unless it is there; return its folder."""
    target = folder / recipe.name.replace(" ", "-").replace(":", "") / str(seed)
    if not (target / "results.json").is_file():
        command, *own_flags = recipe.command
        own_flags += ["--output", str(target)]
        own_flags += ["--plots_path", str(target.parent / f"{seed}-plot")]
        if target.with_name(f"{target.name}.unfinished").is_dir():
            own_flags.append("--resume")
        target.parent.mkdir(parents=True, exist_ok=True)
        # Of a flag given twice the last one counts, which is the recipe's own.
        run = [sys.executable, "-m", "potstill", command, str(seed), *flags, *own_flags]
        with (target.parent / f"{seed}.log").open("w") as log:
            environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
            subprocess.run(run, check=True, stdout=log, stderr=log, env=environment)
        print(f"trained: {target}", file=sys.stderr, flush=True)
    return target
