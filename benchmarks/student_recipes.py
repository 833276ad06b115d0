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
from potstill.transfer.dataset import TransferSet, read_transfer_set
from potstill.transfer.sentences import SourceKind
from potstill.transfer.shards import DESCRIPTION, SHARD_SIZE, VOCABULARY, list_shards

CONTROL, ALONE, WHOLE = "control: labels alone", "CoLA alone", "the whole set"
SHARES = {f"{share:g} of the set": share for share in (0.25, 0.5)}  # for the learning curve
# Rows with a part of the set: its share, and the kinds of sentences it has.
PARTS = {name: (share, tuple(SourceKind)) for name, share in SHARES.items()}
PARTS |= {str(kind): (1.0, (kind,)) for kind in (SourceKind.SAMPLED, SourceKind.EDITED)}
# Rows with all of it, and their flags.
VARIANTS = {
    "no language model": ["--pretrain_epochs", "0"],
    "drawn tokens alone": ["--pretrain_targets", "hard"],
    "whole sentences alone": ["--word_loss_weight", "0"],
    WHOLE: [],
}
ROWS = [CONTROL, ALONE, *PARTS, *VARIANTS]


@dataclass(frozen=True)
class Recipe:
    """A row: its name, the command and flags that train it, the sentences of its transfer set."""

    name: str
    words: list[str]
    sentences: int = 0


def part_of(whole: Path, target: Path, share: float, kinds: tuple[SourceKind, ...]) -> TransferSet:
    """Make a transfer set of the first shards of another's `kinds`."""
    description = json.loads((whole / DESCRIPTION).read_text())
    capacity = description.get("shard_size", SHARD_SIZE)
    for kind, total in description["sentences"].items():
        number = math.ceil(share * total / capacity) if kind in kinds else 0
        description["sentences"][kind] = min(total, number * capacity)
    files = [whole / VOCABULARY]
    for shard in list_shards(whole, description):
        files += [shard.path, shard.top_k_path]
    target.mkdir(parents=True, exist_ok=True)
    for file in files:
        if file.exists() and not (target / file.name).exists():
            os.link(file, target / file.name)
    write_json(target / DESCRIPTION, description)
    return read_transfer_set(target)


def text_of(transfer_set: TransferSet) -> int:
    """Return how many sentences a language model learns from."""
    return sum(origin.kind is not SourceKind.EDITED for origin in transfer_set.origins)


def recipes(
    teacher: Path,
    whole: Path,
    folder: Path,
    epochs: int,
    pretrain_epochs: int,
    own: int,
    only: list[str],
) -> list[Recipe]:
    """Those called `only`, or all. own: labelled sentences; epochs, pretrain_epochs: over them and
    the whole set, which settles the steps of every recipe that has a part of the set. Over the
    labelled sentences alone a language model takes no more epochs than that: it would learn them by
    heart."""
    if unknown := set(only) - set(ROWS):
        raise SystemExit(f"--only: there is no row {sorted(unknown)[0]!r} among {', '.join(ROWS)}.")
    distil = ["distil", "--model_path", str(teacher)]
    all_of_it = read_transfer_set(whole)
    steps = epochs * (own + len(all_of_it.sentences))
    text_steps = pretrain_epochs * (own + text_of(all_of_it))
    few = ["--pretrain_epochs", str(pretrain_epochs)]

    def recipe(name: str) -> Recipe:
        if name == CONTROL:
            return Recipe(name, ["rnn", "--epochs", str(round(steps / own)), *few])
        if name == ALONE:
            return Recipe(name, [*distil, "--epochs", str(EPOCHS), *few])
        target, found = whole, all_of_it
        if name in PARTS:
            target = folder / "sets" / name.replace(" ", "-")
            found = part_of(whole, target, *PARTS[name])
        sentences, text = len(found.sentences), text_of(found)
        count = str(round(steps / (own + sentences)))
        words = [*distil, "--transfer_set", str(target), "--epochs", count]
        words += ["--pretrain_epochs", str(round(text_steps / (own + text)))] if text else few
        return Recipe(name, words + VARIANTS.get(name, []), sentences)

    return [recipe(name) for name in ROWS if not only or name in only]


def train(recipe: Recipe, seed: int, folder: Path, flags: list[str], threads: int) -> Path:
    """Trains one student by the command line, unless it is there; returns its folder."""
    target = folder / recipe.name.replace(" ", "-").replace(":", "") / str(seed)
    if not (target / "results.json").is_file():
        command, *words = recipe.words
        words += [
            "--student_path",
            str(target),
            "--plots_path",
            str(target.parent / f"{seed}-plot"),
        ]
        if target.with_name(f"{target.name}.unfinished").is_dir():
            words.append("--resume")
        target.parent.mkdir(parents=True, exist_ok=True)
        # The last of a flag given twice counts: the row's own.
        run = [sys.executable, "-m", "potstill", command, str(seed), *flags, *words]
        with (target.parent / f"{seed}.log").open("w") as log:
            environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
            subprocess.run(run, check=True, stdout=log, stderr=log, env=environment)
        print(f"trained: {target}", file=sys.stderr, flush=True)
    return target
