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
LARGEST = 10_000_000  # bytes of the archive, and of each of its files: CoLA's have 0.4 MB
COLA_FOLDERS = ("data", "data/cola", "data/raw", "data/cola_public/raw")


class DownloadError(UserError):
    """CoLA could not be downloaded."""


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
        DownloadError: they can't be downloaded.
        UserError: data/cola exists, or what is downloaded is not CoLA.
    """
    target = Path("data/cola")
    if target.exists():
        raise UserError(
            f"{target} is there, but holds no {COLA_FILES['train']}; put CoLA's three files into "
            "it, or remove it."
        )
    try:
        archive = zipfile.ZipFile(io.BytesIO(download.fetch(COLA_URL, limit=LARGEST)))
        with atomic_folder(target) as staging:
            for name in COLA_FILES.values():
                (staging / name).write_bytes(_member(archive, f"cola_public/raw/{name}"))
            splits = {
                name: read_split(read_table(staging / file).check(), ("0", "1"), {})
                for name, file in COLA_FILES.items()
            }
            check_cola(splits, COLA_URL)
    except (OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DownloadError(
            f"CoLA could not be downloaded from {COLA_URL} ({error}); try again, or put its three "
            "files into data/."
        ) from error
    return target


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return a file of an archive; its name there decides nothing about where it is written.

    Raises:
        OSError: It is larger than `LARGEST`, whatever the archive says.
    """
    with archive.open(name) as file:
        body = file.read(LARGEST + 1)
    if len(body) > LARGEST:
        raise OSError(f"{name} has more than {LARGEST} bytes")
    return body
