"""Converting transfer sets of earlier versions, which were compressed JSON lines.

A shard was a file of lines {"sentence", "source", "parent", "logits", "word_logits"}, and next to
one of sampled sentences lay its top-k targets, as arrays of numpy's.
"""

import gzip
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from potstill.errors import UserError
from potstill.files import read_json
from potstill.parsing import parse_json
from potstill.progress import Progress, no_progress
from potstill.transfer.sentences import LabelledSentence, Origin, SourceKind
from potstill.transfer.shards import DESCRIPTION, Shard, list_shards, write_shard
from potstill.transfer.top_k import TopKTargets

# The arrays of a file of targets, in the order of the fields of `TopKTargets`.
ARRAYS = ("ends", "tokens", "chances", "following")


def is_old(shards: list[Shard]) -> bool:
    """Return whether any of a set's shards is to be converted."""
    return any(_old_path(shard).is_file() for shard in shards)


def convert_set(folder: Path, progress: Progress = no_progress) -> int:
    """Convert a set in its folder; return how many shards there were to convert.

    A shard of the old format is removed once its new one is there, so that an interrupted
    conversion goes on where it stopped and nothing is lost.

    Args:
        folder: The set, finished or not.
        progress: Shows the sentences done.

    Raises:
        UserError: There is no set, or a damaged one.
    """
    description = read_json(folder / DESCRIPTION)
    try:
        shards, classes = list_shards(folder, description), len(description["labels"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / DESCRIPTION} is damaged ({error}).") from error
    old = [shard for shard in shards if _old_path(shard).is_file()]
    done = 0
    with progress(sum(shard.size for shard in old)) as show:
        for shard in old:
            if not shard.path.is_file():
                rows, top_k = _read_old_shard(shard, classes)
                write_shard(shard.path, rows, classes, top_k)
            _old_path(shard).unlink()
            _old_top_k_path(shard).unlink(missing_ok=True)
            done += shard.size
            show(done, "converted")
    return len(old)


def _old_path(shard: Shard) -> Path:
    return shard.folder / f"{shard.name}.jsonl.gz"


def _old_top_k_path(shard: Shard) -> Path:
    return shard.folder / f"{shard.name}.next.npz"


def _read_old_shard(
    shard: Shard, classes: int
) -> tuple[list[LabelledSentence], list[TopKTargets | None] | None]:
    path = _old_path(shard)
    try:
        if not (body := path.read_bytes()):
            raise EOFError("it is empty")
        text = gzip.decompress(body).decode()
        # Not splitlines: a sentence may hold one of Unicode's other line ends.
        rows = [_parse_row(parse_json(line), classes) for line in text.split("\n") if line]
    except (OSError, EOFError, ValueError, KeyError, TypeError, zlib.error) as error:
        raise _damaged(path, error) from error
    if shard.kind is not SourceKind.SAMPLED:
        return rows, None
    path = _old_top_k_path(shard)
    if not path.is_file():
        return rows, [None] * len(rows)
    try:
        return rows, [*_read_old_top_k(path, len(rows))]
    except Exception as error:  # zipfile, zlib and numpy raise their own kinds
        raise _damaged(path, error) from error


def _parse_row(row: Any, classes: int) -> LabelledSentence:
    if not isinstance(row, dict):
        raise ValueError(f"{row} is no JSON object")
    origin, word_logits = Origin.parse(str(row["source"])), row.get("word_logits", [])
    sizes = {len(logits) for logits in (row["logits"], *word_logits)}
    if sizes != {classes} or not row["sentence"]:
        raise ValueError(f"{row} has not the form of a row")
    return LabelledSentence(row["sentence"], origin, str(row["parent"]), row["logits"], word_logits)


def _read_old_top_k(path: Path, sentences: int) -> list[TopKTargets]:
    with np.load(path) as archive:
        counts = archive["counts"]
        arrays = [archive[name] for name in ARRAYS]
    if len(counts) != sentences or {len(array) for array in arrays} != {counts.sum()}:
        raise ValueError("it does not fit its sentences")
    parts = (np.split(array, counts.cumsum()[:-1]) for array in arrays)
    return [TopKTargets(*fields) for fields in zip(*parts, strict=True)][:sentences]


def _damaged(path: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:200]
    return UserError(
        f"{path} is damaged ({reason}); remove it, convert the others and run `potstill transfer` "
        "again, which makes another."
    )
