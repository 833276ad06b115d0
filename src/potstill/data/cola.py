"""CoLA: the names of its files, how many sentences they have, and its download."""

import io
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

from potstill.data import download
from potstill.data.readers import read_table
from potstill.data.splits import Split, read_split
from potstill.errors import UserError
from potstill.files import atomic_folder

COLA_URL = "https://nyu-mll.github.io/CoLA/cola_public_1.1.zip"
COLA_LABELS = ("unacceptable", "acceptable")
COLA_FILES = {
    "train": "in_domain_train.tsv",
    "dev": "in_domain_dev.tsv",
    "ood": "out_of_domain_dev.tsv",
}
# Number of sentences, and of acceptable ones, in CoLA 1.1: a file with others is not called CoLA.
COLA_COUNTS = {"train": (8551, 6023), "dev": (527, 365), "ood": (516, 354)}
COLA_FOLDERS = ("data", "data/cola", "data/raw", "data/cola_public/raw")


def check_cola(
    splits: dict[str, Split], where: object, names: Iterable[str] = tuple(COLA_FILES)
) -> None:
    """Check that the splits called `names` have as many sentences and acceptable ones as CoLA.

    Raises:
        UserError: they do not, or one is missing; the message names `where` they come from.
    """
    for name in names:
        expected, split = COLA_COUNTS[name], splits.get(name, Split([], []))
        actual = (len(split), sum(split.labels))
        if actual != expected:
            raise UserError(
                f"{where} is not CoLA: {COLA_FILES[name]} has {actual[0]} sentences, {actual[1]} "
                f"of them acceptable, where CoLA has {expected[0]} and {expected[1]}; remove it or "
                "name it with `data`."
            )


def download_cola() -> Path:
    """Download CoLA's three files into data/cola, all or none, and return that folder.

    Raises:
        UserError: they can't be downloaded, or data/cola exists.
    """
    target = Path("data/cola")
    if target.exists():
        raise UserError(
            f"{target} is there, but holds no {COLA_FILES['train']}; put CoLA's three files into "
            "it, or remove it."
        )
    try:
        archive = zipfile.ZipFile(io.BytesIO(download.fetch(COLA_URL, limit=10_000_000)))
        with atomic_folder(target) as staging:
            for name in COLA_FILES.values():
                (staging / name).write_bytes(archive.read(f"cola_public/raw/{name}"))
            splits = {
                name: read_split(read_table(staging / file).check(), ("0", "1"), {})
                for name, file in COLA_FILES.items()
            }
            check_cola(splits, COLA_URL)
    except (OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"CoLA could not be downloaded from {COLA_URL} ({error}); try again, or put its three "
            "files into data/."
        ) from error
    return target
