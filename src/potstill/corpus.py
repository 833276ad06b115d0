"""Labelled sentences: find or download a task, and check that it is whole."""

import hashlib
import io
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from potstill import UserError, network
from potstill.checkpoint import atomic_folder
from potstill.formats import Row, is_cola_format, read_rows

COLA_URL = "https://nyu-mll.github.io/CoLA/cola_public_1.1.zip"
COLA_LABELS = ("unacceptable", "acceptable")
COLA_FILES = {
    "train": "in_domain_train.tsv",
    "dev": "in_domain_dev.tsv",
    "ood": "out_of_domain_dev.tsv",
}
# Sentences and acceptable ones of CoLA 1.1: what a file must hold to be called CoLA.
COLA_COUNTS = {"train": (8551, 6023), "dev": (527, 365), "ood": (516, 354)}
COLA_PLACES = ("data", "data/cola", "data/raw", "data/cola_public/raw")
MINICOLA = Path(__file__).parent / "minicola"
NEIGHBOURS = 10  # sentences in a row that are held out together
SPLIT_NAMES = {
    "train": ("train",),
    "dev": ("dev", "valid", "validation"),
    "ood": ("ood", "out_of_domain"),
}


@dataclass(frozen=True)
class Split:
    """Sentences, the class of each (an index into the corpus's labels) and what CoLA calls its
    source: the publication, or in MiniCoLA the phenomenon; empty where the file names none."""

    sentences: list[str]
    labels: list[int]
    sources: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.sentences)

    def take(self, index: list[int]) -> "Split":
        """The sentences at `index`, in that order."""
        return Split(
            [self.sentences[i] for i in index],
            [self.labels[i] for i in index],
            [self.sources[i] for i in index] if self.sources else [],
        )


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
    splits = {name: _split(files[name], rows[name], labels) for name in files}
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
        splits[name] = _split(file, read_rows(file, text_column, label_column), known)
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
    starts = np.random.default_rng([seed, 1]).permutation(range(0, len(split), NEIGHBOURS)).tolist()
    order = [i for s in starts for i in range(s, min(s + NEIGHBOURS, len(split)))]
    return split.take(sorted(order[count:])), split.take(sorted(order[:count]))


def check_cola(
    splits: dict[str, Split], where: object, names: Iterable[str] = tuple(COLA_FILES)
) -> None:
    """Raises UserError unless the splits called `names` are there, each with CoLA's number of
    sentences and acceptable ones."""
    for name in names:
        expected, split = COLA_COUNTS[name], splits.get(name, Split([], []))
        found = (len(split), sum(split.labels))
        if found != expected:
            raise UserError(
                f"{where} is not CoLA: {COLA_FILES[name]} has {found[0]} sentences, {found[1]} of "
                f"them acceptable, where CoLA has {expected[0]} and {expected[1]}; remove it or "
                "name it with --data."
            )


def _find(data: str) -> tuple[Path, str]:
    """The file or folder that `data` means, and why where it was chosen."""
    if data == "minicola":
        return MINICOLA, ""
    if data in ("cola", "auto"):
        for place in map(Path, COLA_PLACES):
            if (place / COLA_FILES["train"]).is_file():
                return place, f"CoLA is in {place}/" if data == "auto" else ""
        if network.reachable(COLA_URL):
            return _download_cola(), "CoLA could be downloaded" if data == "auto" else ""
        if data == "auto":
            return MINICOLA, "no CoLA in data/, and its site can't be reached"
        raise UserError(
            f"CoLA is not in data/ and {COLA_URL} can't be reached; "
            f"put its three files into data/, or name them with --data."
        )
    path = Path(data)
    if not path.exists():
        raise UserError(f"--data {data}: there is no such file or folder.")
    return path, ""


def _download_cola() -> Path:
    """Fetches CoLA's three files into data/cola, all or none."""
    target = Path("data/cola")
    if target.exists():
        raise UserError(
            f"{target} is there, but holds no {COLA_FILES['train']}; put CoLA's three files into "
            "it, or remove it."
        )
    try:
        archive = zipfile.ZipFile(io.BytesIO(network.fetch(COLA_URL, limit=10_000_000)))
        with atomic_folder(target) as staging:
            for name in COLA_FILES.values():
                (staging / name).write_bytes(archive.read(f"cola_public/raw/{name}"))
            files = _split_files(staging)
            splits = {n: _split(f, read_rows(f, None, None), ("0", "1")) for n, f in files.items()}
            check_cola(splits, COLA_URL)
    except (OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"CoLA could not be downloaded from {COLA_URL} ({error}); try again, or put its three "
            "files into data/."
        ) from error
    return target


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
    if "dev" in held and all(held[name] == COLA_COUNTS.get(name) for name in held):
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


def _split(file: Path, rows: list[Row], labels: tuple[str, ...]) -> Split:
    index = {name: i for i, name in enumerate(labels)}
    for row in rows:
        if row.label not in index:
            raise UserError(
                f"{file}:{row.line}: label {row.label!r} is none of {', '.join(labels)}."
            )
    sources = [row.source for row in rows]
    return Split(
        [row.text for row in rows],
        [index[row.label] for row in rows],
        sources if any(sources) else [],
    )
