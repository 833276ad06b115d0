"""The teacher's logits, each computed once and cached."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager

import numpy as np
import torch
from torch import Tensor

from potstill.errors import UserError
from potstill.files import cache_folder
from potstill.progress import Progress, no_progress
from potstill.training.distributed import process


class LogitCache:
    """A teacher's logits by sentence, in one SQLite file in the cache folder.

    The file is named for the teacher, so no logit can be taken for another teacher's; those after
    each word, and those of another arithmetic, have another `kind` of file.
    """

    def __init__(self, teacher: str, kind: str = ""):
        self.file = cache_folder() / "logits" / f"{teacher[:32]}{kind}.sqlite"
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self._open() as store:
                store.execute("CREATE TABLE IF NOT EXISTS kept (sentence TEXT PRIMARY KEY, logits)")
        except (OSError, sqlite3.Error) as error:
            raise UserError(f"{self.file} can't be used ({error}); remove it.") from error

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        # sqlite3's own context commits but leaves the file open.
        with closing(sqlite3.connect(self.file, timeout=60)) as store, store:
            yield store

    def get(self, sentences: list[str]) -> dict[str, np.ndarray]:
        """Return the cached logits of `sentences`, each in one dimension, fp32."""
        cached = {}
        with self._open() as store:
            for start in range(0, len(sentences), 500):
                part = sentences[start : start + 500]
                marks = ",".join("?" * len(part))
                query = f"SELECT sentence, logits FROM kept WHERE sentence IN ({marks})"
                for sentence, logits in store.execute(query, part):
                    cached[sentence] = np.frombuffer(logits, dtype="<f4")
        return cached

    def put(self, sentences: list[str], logits: Iterable[np.ndarray | Tensor]) -> None:
        """Store the `logits` of each of `sentences`."""
        rows = (np.asarray(row, "<f4").tobytes() for row in logits)
        with self._open() as store:
            store.executemany(
                "INSERT OR REPLACE INTO kept VALUES (?, ?)", zip(sentences, rows, strict=True)
            )


def label_sentences(
    sentences: list[str],
    cache: LogitCache,
    label: Callable[[list[str]], Iterable[np.ndarray | Tensor]],
    *,
    chunk: int = 512,
    progress: Progress = no_progress,
) -> tuple[list[Tensor], int]:
    """Return the teacher's logits of each of `sentences`, in one dimension, and how many had to be
    computed.

    `label` maps sentences to their logits; it is called for what is not cached yet, a chunk at a
    time, and each chunk is cached at once, so that an interrupted run continues where it stopped.
    """
    logits = cache.get(sentences)
    process().wait_for_everyone()  # before any process caches more than another has seen
    missing = sorted({s for s in sentences if s not in logits}, key=lambda s: (len(s), s))
    with progress(len(missing)) as show:
        for start in range(0, len(missing), chunk):
            part = missing[start : start + chunk]
            rows = label(part)
            if process().is_local_main_process:
                cache.put(part, rows)
            logits.update((s, np.asarray(row).ravel()) for s, row in zip(part, rows, strict=True))
            show(start + len(part), "teacher labels")
    return [torch.tensor(logits[s]) for s in sentences], len(missing)
