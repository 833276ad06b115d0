"""Labelled sentences: find or download a task, and check that it is whole."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from potstill.data import cola, download
from potstill.data.cola import COLA_FILES, COLA_FOLDERS, COLA_LABELS, check_cola, download_cola
from potstill.data.readers import Row, is_cola_format, read_rows
from potstill.data.splits import Split, read_split
from potstill.errors import UserError

MINICOLA = Path(__file__).parent / "minicola"
HOLDOUT_BLOCK = 10  # sentences in a row that are held out together
SPLIT_NAMES = {
    "train": ("train",),
    "dev": ("dev", "valid", "validation"),
    "ood": ("ood", "out_of_domain"),
}


@dataclass(frozen=True)
class Corpus:
    """A task: `splits` holds "train" and "dev", and "ood" (out of domain) where there is one.

    name: for tables and titles; labels: names of the classes; sha256: over the files, in the order
    of the splits; path: where they were read; reason: how `auto` came to choose it, else empty.
    """

    name: str
    labels: tuple[str, ...]
    splits: dict[str, Split]
    path: str
    sha256: str
    reason: str = ""

    def describe(self) -> dict[str, object]:
        """What a run records of its data."""
        sizes = {name: len(split) for name, split in self.splits.items()}
        return {
            "name": self.name,
            "path": self.path,
            "sha256": self.sha256,
            "labels": list(self.labels),
            "sentences": sizes,
        }


def load_corpus(
    data: str = "auto",
    text_column: str | None = None,
    label_column: str | None = None,
) -> Corpus:
    """Reads a task to train on; a tenth of train is dev where the data brings no dev file.

    Args:
        data: a file, a folder, "cola", "minicola" or "auto".
        text_column, label_column: columns of a file with a header, or keys of JSON lines; by
            default the first of "sentence", "text" and of "label", "labels".

    Raises:
        UserError: nothing there, or a line that does not fit, named as file:line.
    """
    folder, reason = _find(data)
    files = _split_files(folder)
    if "train" not in files:
        raise UserError(
            f"{folder} has no {COLA_FILES['train']} and no train.tsv, train.csv or train.jsonl; "
            "name a file or another folder with --data."
        )
    rows = {name: read_rows(file, text_column, label_column) for name, file in files.items()}
    labels = _label_names(files["train"], rows["train"])
    splits = {name: read_split(files[name], rows[name], labels) for name in files}
    if "dev" not in splits:
        # The same for every SR, so that runs can be compared and no teacher has learned it.
        splits["train"], splits["dev"] = hold_out(splits["train"], 0.1, seed=0)
    if labels == ("0", "1") and is_cola_format(files["train"], text_column):
        labels = COLA_LABELS
    if data in ("cola", "auto") and folder != MINICOLA:
        check_cola(splits, folder)
    name = _corpus_name(folder, splits)
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files.values())).hexdigest()
    return Corpus(name, labels, splits, str(folder), digest, reason)


def load_evaluation(
    data: str,
    labels: tuple[str, ...],
    text_column: str | None = None,
    label_column: str | None = None,
) -> Corpus:
    """Reads what a model is to be scored on: a file whole, of a folder its dev and ood files.

    labels: the model's classes; a label that is none of them is a UserError. CoLA's 0 and 1 are
    taken for the first and the second of two classes.
    """
    folder, reason = _find(data)
    files = _split_files(folder)
    if folder.is_dir():
        files = {name: file for name, file in files.items() if name != "train"}
        if not files:
            raise UserError(f"{folder} has no dev file to score on; name a file with --data.")
    else:
        files = {folder.stem: folder}
    splits = {}
    for name, file in files.items():
        known = labels
        if len(labels) == 2 and is_cola_format(file, text_column):
            known = ("0", "1")
        splits[name] = read_split(file, read_rows(file, text_column, label_column), known)
    if data in ("cola", "auto") and folder != MINICOLA:
        check_cola(splits, folder, ("dev", "ood"))
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files.values())).hexdigest()
    return Corpus(_corpus_name(folder, splits), labels, splits, str(folder), digest, reason)


def hold_out(split: Split, share: float, seed: int) -> tuple[Split, Split]:
    """Splits off a random `share` of the sentences, at least one: (the rest, the held out).

    Taken in runs of neighbours, which in corpora like CoLA are often variants of one sentence:
    with its variants, of the other label, left in train, a sentence would be held out for nothing.
    """
    count = max(1, round(share * len(split)))
    if count >= len(split):
        raise UserError(
            f"{len(split)} training sentences are too few to hold out {count} of them; "
            "bring more, or lower --holdout."
        )
    starts = (
        np.random.default_rng([seed, 1]).permutation(range(0, len(split), HOLDOUT_BLOCK)).tolist()
    )
    order = [i for s in starts for i in range(s, min(s + HOLDOUT_BLOCK, len(split)))]
    return split.take(sorted(order[count:])), split.take(sorted(order[:count]))


def _find(data: str) -> tuple[Path, str]:
    """The file or folder that `data` means, and why where it was chosen."""
    if data == "minicola":
        return MINICOLA, ""
    if data in ("cola", "auto"):
        for place in map(Path, COLA_FOLDERS):
            if (place / COLA_FILES["train"]).is_file():
                return place, f"CoLA is in {place}/" if data == "auto" else ""
        if download.reachable(cola.COLA_URL):
            return download_cola(), "CoLA could be downloaded" if data == "auto" else ""
        if data == "auto":
            return MINICOLA, "no CoLA in data/, and its site can't be reached"
        raise UserError(
            f"CoLA is not in data/ and {cola.COLA_URL} can't be reached; "
            f"put its three files into data/, or name them with --data."
        )
    path = Path(data)
    if not path.exists():
        raise UserError(f"--data {data}: there is no such file or folder.")
    return path, ""


def _split_files(path: Path) -> dict[str, Path]:
    """The file of each split: a file is the train split alone."""
    if path.is_file():
        return {"train": path}
    files = {}
    for split, stems in SPLIT_NAMES.items():
        names = [COLA_FILES[split]]
        names += [f"{stem}.{ext}" for stem in stems for ext in ("tsv", "csv", "jsonl", "json")]
        found = [path / name for name in names if (path / name).is_file()]
        if len(found) > 1:
            raise UserError(
                f"{path} has two {split} files, {found[0].name} and {found[1].name}; remove one."
            )
        if found:
            files[split] = found[0]
    return files


def _corpus_name(path: Path, splits: dict[str, Split]) -> str:
    if path == MINICOLA:
        return "MiniCoLA"
    held = {name: (len(split), sum(split.labels)) for name, split in splits.items()}
    if "dev" in held and all(held[name] == cola.COLA_COUNTS.get(name) for name in held):
        return "CoLA"
    name = path.resolve().name if path.is_dir() else path.stem
    # The names of these two are kept for the very data.
    return f"{path.resolve().parent.name}/{name}" if name.lower() in ("cola", "minicola") else name


def _label_names(file: Path, rows: list[Row]) -> tuple[str, ...]:
    names = {row.label for row in rows}
    if len(names) < 2:
        raise UserError(f"{file} has one label only, {names.pop()!r}; a classifier needs two.")
    if all(name.isdecimal() for name in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))
