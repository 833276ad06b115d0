"""What `data` means: a file, a folder, a corpus by name, or data in memory, read split by split."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.data import cola, download
from potstill.data.cola import COLA_FILES, COLA_FOLDERS, DownloadError, download_cola
from potstill.data.columnar import (
    HUB_NAME,
    IN_MEMORY,
    is_saved_dataset,
    load_hub_dataset,
    load_saved_dataset,
    read_columns,
)
from potstill.data.columns import Columns
from potstill.data.encoding import format_stem, format_suffix
from potstill.data.readers import SUFFIXES, Table, read_table
from potstill.errors import UserError

MINICOLA = Path(__file__).parent / "minicola"
# Stems of the file names of each split, other than CoLA's.
SPLIT_STEMS = {
    "train": ("train",),
    "dev": ("dev", "valid", "validation"),
    "ood": ("ood", "out_of_domain"),
    "test": ("test",),
}


@dataclass(frozen=True)
class Tables:
    """What `data` means, read, but with labels and rows as they are.

    Args:
        name: Name for titles; empty where it follows from the path.
        path: The file or folder; what messages call data without one.
        tables: The table of each split.
        sha256: Hash over all of it.
        reason: Why `auto` chose it; else empty.
    """

    name: str
    path: str
    tables: dict[str, Table]
    sha256: str
    reason: str = ""

    def is_cola(self, data: Any) -> bool:
        """Return whether `data`, of which these are the tables, has to be CoLA itself."""
        return isinstance(data, str) and data in ("cola", "auto") and self.path != str(MINICOLA)

    def notes(self) -> tuple[str, ...]:
        """Return what is worth saying about how it was read, each once."""
        return tuple(dict.fromkeys(note for table in self.tables.values() for note in table.notes))


def read_tables(data: Any, columns: Columns) -> Tables:
    """Return what `data` means, split by split, as it is in the files.

    Raises:
        UserError: There is no such data, or it can't be read.
    """
    if not isinstance(data, str | Path):
        return _in_memory(IN_MEMORY, data, columns)
    path, reason = _find(data)
    if path is None:
        return _in_memory(str(data), load_hub_dataset(str(data)), columns)
    if path.is_dir() and is_saved_dataset(path):
        return _in_memory(str(path), load_saved_dataset(path), columns)
    files = _split_files(path)
    tables = {name: read_table(file, columns) for name, file in files.items()}
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files.values())).hexdigest()
    return Tables("", str(path), tables, digest, reason)


def _in_memory(path: str, data: Any, columns: Columns) -> Tables:
    """Return data in memory, one table or a dict of them by split."""
    parts = data if isinstance(data, Mapping) else {"train": data}
    tables = {}
    for key, part in parts.items():
        split = next((name for name, stems in SPLIT_STEMS.items() if str(key) in stems), None)
        if split is None:
            known = ", ".join(stem for stems in SPLIT_STEMS.values() for stem in stems)
            raise UserError(f"{path}: {key!r} is no split; the splits are {known}.")
        where = path if len(parts) == 1 else f"{path}, {key}"
        if isinstance(part, str | Path):
            tables[split] = read_table(Path(part), columns)
        else:
            tables[split] = read_columns(part, columns, where)
    digest = hashlib.sha256()
    for split in sorted(tables, key=list(SPLIT_STEMS).index):
        for row in tables[split].rows:
            digest.update(f"{row.label}\t{row.text}\n".encode(errors="surrogatepass"))
    name = "texts" if path == IN_MEMORY else path.rstrip("/").rpartition("/")[2]
    return Tables(name, path, tables, digest.hexdigest())


def _find(data: str | Path) -> tuple[Path | None, str]:
    """Return the file or folder that `data` means, None for a name on the Hub, and why `auto`
    chose it."""
    if data == "minicola":
        return MINICOLA, ""
    if data in ("cola", "auto"):
        for folder in map(Path, COLA_FOLDERS):
            if (folder / COLA_FILES["train"]).is_file():
                return folder, f"CoLA is in {folder}/" if data == "auto" else ""
        if download.reachable(cola.COLA_URL):
            try:
                return download_cola(), "CoLA could be downloaded" if data == "auto" else ""
            except DownloadError as error:  # as a login page in its place
                if data != "auto":
                    raise
                return MINICOLA, f"no CoLA in data/, and {str(error).partition(';')[0]}"
        if data == "auto":
            return MINICOLA, "no CoLA in data/, and its site can't be reached"
        raise UserError(
            f"CoLA is not in data/ and {cola.COLA_URL} can't be reached; "
            f"put its three files into data/, or name them with `data`."
        )
    try:
        str(data).encode()  # a run writes the name into its files
    except UnicodeEncodeError as error:
        raise UserError(f"`data` {str(data)!a}: the name is not UTF-8; rename it.") from error
    path = Path(data)
    if path.exists():
        return path, ""
    if HUB_NAME.fullmatch(str(data)) and format_suffix(path) not in SUFFIXES:
        return None, ""
    raise UserError(f"`data` {data}: there is no such file or folder.")


def _split_files(path: Path) -> dict[str, Path]:
    """Return the file of each split; a file alone is the train split."""
    if not path.is_dir():
        return {"train": path}
    files: dict[str, Path] = {}
    order = {suffix: i for i, suffix in enumerate(SUFFIXES)}
    for split, stems in SPLIT_STEMS.items():
        present = sorted(
            (
                file
                for file in path.iterdir()
                if file.name == COLA_FILES.get(split)
                or (format_stem(file).lower() in stems and format_suffix(file) in order)
            ),
            key=lambda file: (order[format_suffix(file)], file.name),
        )
        if len(present) > 1:
            raise UserError(
                f"{path} has two {split} files, {present[0].name} and {present[1].name}; "
                "remove one."
            )
        if present:
            files[split] = present[0]
    return files
