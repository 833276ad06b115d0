"""The distillation loss, and the teacher's logits, each computed once and kept."""

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from potstill import UserError
from potstill.checkpoint import cache_folder
from potstill.processes import process
from potstill.reporting import progress_bar
from potstill.training import UNLABELLED


def distillation_loss(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    temperature: float,
    alpha: float,
    loss: Literal["kl", "mse"] = "kl",
) -> Tensor:
    """Mean loss of a batch, from (B, C) logits of student and teacher and (B,) labels.

    kl: alpha · T² · KL(teacher_T ‖ student_T) + (1 − alpha) · CE, where _T is the softmax at
    temperature T (Hinton, Vinyals and Dean 2015, *Distilling the Knowledge in a Neural Network*,
    section 2). mse: the squared difference of the logits in place of T² · KL (Ba and Caruana 2014,
    *Do Deep Nets Really Need to be Deep?*, section 2.2); it takes no temperature. A sentence
    labelled UNLABELLED adds nothing to CE, and counts in its mean all the same.
    """
    hard = F.cross_entropy(student, labels, ignore_index=UNLABELLED, reduction="sum")
    soft = soft_losses(student, teacher, temperature, loss).mean()
    return alpha * soft + (1 - alpha) * hard / len(labels)


def soft_losses(
    student: Tensor, teacher: Tensor, temperature: float, loss: Literal["kl", "mse"]
) -> Tensor:
    """(N,) what pulls each of (N, C) logits to the teacher's; see `distillation_loss`."""
    if loss == "mse":
        return F.mse_loss(student, teacher, reduction="none").mean(1)
    divergence = F.kl_div(
        F.log_softmax(student / temperature, dim=-1),
        F.log_softmax(teacher / temperature, dim=-1),
        reduction="none",
        log_target=True,
    )
    return temperature**2 * divergence.sum(1)


def teacher_hash(
    base_sha256: str, adapter_weights: Path, max_length: int, start: int | None
) -> str:
    """What settles a teacher's logits: its base, its adapter, and how it takes sentences."""
    adapter = hashlib.sha256(adapter_weights.read_bytes()).hexdigest()
    return hashlib.sha256(f"{base_sha256} {adapter} {max_length} {start}".encode()).hexdigest()


class KeptLogits:
    """A teacher's logits by sentence, in one SQLite file in the cache folder.

    The file is named for the teacher, so no logit can be taken for another teacher's; those after
    each word have another `kind` of file.
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
        """The logits kept of `sentences`, each in one dimension, fp32."""
        found = {}
        with self._open() as store:
            for start in range(0, len(sentences), 500):
                part = sentences[start : start + 500]
                marks = ",".join("?" * len(part))
                query = f"SELECT sentence, logits FROM kept WHERE sentence IN ({marks})"
                for sentence, logits in store.execute(query, part):
                    found[sentence] = np.frombuffer(logits, dtype="<f4")
        return found

    def put(self, sentences: list[str], logits: Iterable[Tensor]) -> None:
        """Keeps the `logits` of each of `sentences`."""
        rows = (one.numpy().astype("<f4").tobytes() for one in logits)
        with self._open() as store:
            store.executemany(
                "INSERT OR REPLACE INTO kept VALUES (?, ?)", zip(sentences, rows, strict=True)
            )


def label_sentences(
    sentences: list[str],
    kept: KeptLogits,
    label: Callable[[list[str]], Iterable[Tensor]],
    chunk: int = 512,
) -> tuple[list[Tensor], int]:
    """The teacher's logits of each of `sentences`, in one dimension, and how many had to be
    computed.

    `label` maps sentences to their logits; it is asked for what is not kept yet, a chunk at a
    time, and each chunk is kept at once, so that an interrupted run goes on where it stopped.
    """
    found = kept.get(sentences)
    process().wait_for_everyone()  # before any process keeps more than another has seen
    missing = sorted({s for s in sentences if s not in found}, key=lambda s: (len(s), s))
    with progress_bar(len(missing)) as show:
        for start in range(0, len(missing), chunk):
            part = missing[start : start + chunk]
            logits = label(part)
            kept.put(part, logits)
            found.update((s, one.numpy().ravel()) for s, one in zip(part, logits, strict=True))
            show(start + len(part), "teacher labels")
    return [torch.tensor(found[s]) for s in sentences], len(missing)
