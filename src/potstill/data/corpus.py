"""Labelled sentences: find or download a corpus, and check that it is complete."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from potstill.data import cola, download
from potstill.data.cola import COLA_FILES, COLA_FOLDERS, COLA_LABELS, check_cola, download_cola
from potstill.data.readers import READERS, Row, is_cola_format, read_rows
from potstill.data.splits import Split, read_split
from potstill.errors import UserError

MINICOLA = Path(__file__).parent / "minicola"
HOLDOUT_BLOCK = 10  # consecutive sentences that are held out together
# Stems of the file names of each split, other than CoLA's.
SPLIT_STEMS = {
    "train": ("train",),
    "dev": ("dev", "valid", "validation"),
    "ood": ("ood", "out_of_domain"),
}


@dataclass(frozen=True, repr=False)
class Corpus:
    """Labelled sentences of a classification task, by split.

    Args:
        name: name for tables and titles.
        labels: names of the classes.
        splits: "train" and "dev", and "ood" (out of domain) if there is one.
        path: the file or folder that it was read from.
        sha256: hash over the files in the order of the splits.
        reason: why `auto` chose it; else empty.
    """

    name: str
    labels: tuple[str, ...]
    splits: dict[str, Split]
    path: str
    sha256: str
    reason: str = ""

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}={len(split)}" for name, split in self.splits.items())
        return f"Corpus({self.name!r}, labels={self.labels}, {sizes}, path={self.path!r})"

    def describe(self) -> dict[str, object]:
        """Return what a run records of its data."""
        sizes = {name: len(split) for name, split in self.splits.items()}
        return {
            "name": self.name,
            "path": self.path,
            "sha256": self.sha256,
            "labels": list(self.labels),
            "sentences": sizes,
        }


def load_corpus(
    data: str | Path = "auto",
    text_column: str | None = None,
    label_column: str | None = None,
) -> Corpus:
    """Read a corpus to train on; without a dev file a tenth of train becomes dev.

    >>> corpus = load_corpus("minicola")
    >>> corpus
    Corpus('MiniCoLA', labels=('unacceptable', 'acceptable'), train=3000, dev=500, ood=500, ...)
    >>> corpus.splits["train"]  # has .sentences, .labels and .sources
    Split(3000 sentences, labels {0: 903, 1: 2097})

    Args:
        data: a file, a folder, "minicola", "cola" (in data/, else downloaded), or "auto": CoLA if
            it is there or can be downloaded, else MiniCoLA.
        text_column: column of a file with a header, or key of JSON lines. Default: "sentence" or
            "text".
        label_column: like `text_column`. Default: "label" or "labels".

    Raises:
        UserError: there is no such data, or a line does not fit; it is named as file:line.
    """
    folder, reason = _find(data)
    files = _split_files(folder)
    if "train" not in files:
        raise UserError(
            f"{folder} has no {COLA_FILES['train']} and no train.tsv, train.csv or train.jsonl; "
            "name a file or another folder with `data`."
        )
    rows = {name: read_rows(file, text_column, label_column) for name, file in files.items()}
    labels = _label_names(files["train"], rows["train"])
    splits = {name: read_split(files[name], rows[name], labels) for name in files}
    if "dev" not in splits:
        # The same for every seed, so that runs can be compared and no teacher was trained on it.
        splits["train"], splits["dev"] = hold_out(splits["train"], 0.1, seed=0)
    if labels == ("0", "1") and is_cola_format(files["train"], text_column):
        labels = COLA_LABELS
    if data in ("cola", "auto") and folder != MINICOLA:
        check_cola(splits, folder)
    name = _corpus_name(folder, splits)
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files.values())).hexdigest()
    return Corpus(name, labels, splits, str(folder), digest, reason)


def load_evaluation(
    data: str | Path,
    labels: tuple[str, ...],
    text_column: str | None = None,
    label_column: str | None = None,
) -> Corpus:
    """Read what a model is to be scored on: all of a file, or a folder's dev and ood files.

    Args:
        data: like that of `load_corpus`.
        labels: the model's classes. CoLA's 0 and 1 are the first and the second of two classes.
        text_column: like that of `load_corpus`.
        label_column: like that of `load_corpus`.

    Raises:
        UserError: there is no such data, or a line does not fit or has another label.
    """
    folder, reason = _find(data)
    files = _split_files(folder)
    if folder.is_dir():
        files = {name: file for name, file in files.items() if name != "train"}
        if not files:
            raise UserError(f"{folder} has no dev file to score on; name a file with `data`.")
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


def hold_out(split: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    """Split off a random `fraction` of the sentences, at least one.

    Blocks of consecutive sentences are held out together: in corpora like CoLA they are often
    variants of one sentence with different labels, and a held-out sentence whose variants are in
    train is not unseen.

    Returns:
        The remaining sentences, and the held-out ones.

    Raises:
        UserError: nothing would remain.
    """
    count = max(1, round(fraction * len(split)))
    if count >= len(split):
        raise UserError(
            f"{len(split)} training sentences are too few to hold out {count} of them; "
            "bring more, or lower `holdout`."
        )
    starts = (
        np.random.default_rng([seed, 1]).permutation(range(0, len(split), HOLDOUT_BLOCK)).tolist()
    )
    order = [i for s in starts for i in range(s, min(s + HOLDOUT_BLOCK, len(split)))]
    return split.take(sorted(order[count:])), split.take(sorted(order[:count]))


def _find(data: str | Path) -> tuple[Path, str]:
    """Return the file or folder that `data` means, and why `auto` chose it."""
    if data == "minicola":
        return MINICOLA, ""
    if data in ("cola", "auto"):
        for folder in map(Path, COLA_FOLDERS):
            if (folder / COLA_FILES["train"]).is_file():
                return folder, f"CoLA is in {folder}/" if data == "auto" else ""
        if download.reachable(cola.COLA_URL):
            return download_cola(), "CoLA could be downloaded" if data == "auto" else ""
        if data == "auto":
            return MINICOLA, "no CoLA in data/, and its site can't be reached"
        raise UserError(
            f"CoLA is not in data/ and {cola.COLA_URL} can't be reached; "
            f"put its three files into data/, or name them with `data`."
        )
    path = Path(data)
    if not path.exists():
        raise UserError(f"`data` {data}: there is no such file or folder.")
    return path, ""


def _split_files(path: Path) -> dict[str, Path]:
    """Return the file of each split; a file alone is the train split."""
    if path.is_file():
        return {"train": path}
    files = {}
    for split, stems in SPLIT_STEMS.items():
        names = [COLA_FILES[split]]
        names += [f"{stem}{suffix}" for stem in stems for suffix in READERS]
        present = [name for name in names if (path / name).is_file()]
        if len(present) > 1:
            raise UserError(
                f"{path} has two {split} files, {present[0]} and {present[1]}; remove one."
            )
        if present:
            files[split] = path / present[0]
    return files


def _corpus_name(path: Path, splits: dict[str, Split]) -> str:
    if path == MINICOLA:
        return "MiniCoLA"
    counts = {name: (len(split), sum(split.labels)) for name, split in splits.items()}
    if "dev" in counts and all(counts[name] == cola.COLA_COUNTS.get(name) for name in counts):
        return "CoLA"
    name = path.resolve().name if path.is_dir() else path.stem
    # These two names are reserved for the corpora themselves.
    return f"{path.resolve().parent.name}/{name}" if name.lower() in ("cola", "minicola") else name


def _label_names(file: Path, rows: list[Row]) -> tuple[str, ...]:
    names = {row.label for row in rows}
    if len(names) < 2:
        raise UserError(f"{file} has one label only, {names.pop()!r}; a classifier needs two.")
    if all(name.isdecimal() for name in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))
