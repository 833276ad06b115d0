"""The transfer set: unlabelled sentences with a teacher's logits, read from its files.

Reading needs neither torch nor transformers.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from potstill.errors import UserError
from potstill.files import read_json
from potstill.transfer.sentences import (
    Candidate,
    LabelledSentence,
    Origin,
    SourceKind,
    normal,
)
from potstill.transfer.shards import DESCRIPTION, list_shards, read_shard
from potstill.transfer.top_k import TopKTargets, read_top_k


@dataclass(frozen=True)
class TransferSet:
    """N sentences with the logits of a teacher; the lists have an item for each sentence.

    Attributes:
        sentences: The texts.
        logits: (N, classes) fp32.
        word_logits: Of the sentence up to each of its W words, (W, classes) fp32.
        top_k: The decoder's most probable next tokens in a sampled sentence; None where unknown.
        origins: Where each comes from.
        parents: The sentence that an edited one was made of, else "".
        description: What the set is made of and for which teacher, as in `transfer.json`.
    """

    sentences: list[str]
    logits: np.ndarray
    word_logits: list[np.ndarray]
    top_k: list[TopKTargets | None]
    origins: list[Origin]
    parents: list[str]
    description: dict[str, Any]

    @classmethod
    def from_rows(
        cls,
        rows: Sequence[LabelledSentence],
        top_k: Iterable[TopKTargets | None],
        description: dict[str, Any],
    ) -> "TransferSet":
        """Make a set of labelled sentences and the targets of each."""
        classes = len(description["labels"])
        return cls(
            [row.sentence for row in rows],
            np.array([row.logits for row in rows], np.float32).reshape(-1, classes),
            [np.array(row.word_logits, np.float32).reshape(-1, classes) for row in rows],
            list(top_k),
            [row.origin for row in rows],
            [row.parent for row in rows],
            description,
        )

    def take(self, indices: Sequence[int]) -> "TransferSet":
        """Return the sentences at `indices`, in that order."""
        return TransferSet(
            [self.sentences[i] for i in indices],
            self.logits[list(indices)],
            [self.word_logits[i] for i in indices],
            [self.top_k[i] for i in indices],
            [self.origins[i] for i in indices],
            [self.parents[i] for i in indices],
            self.description,
        )

    def without(self, sentences: list[str]) -> "TransferSet":
        """Return those that neither are nor were made of one of `sentences`."""
        excluded = {normal(s) for s in sentences}
        pairs = zip(self.sentences, self.parents, strict=True)
        return self.take(
            [i for i, pair in enumerate(pairs) if not excluded & {normal(s) for s in pair}]
        )

    def candidates(self, kind: SourceKind) -> list[Candidate]:
        """Return the sentences of one kind, for another teacher to label."""
        rows = map(Candidate, self.sentences, self.origins, self.parents)
        return [row for row in rows if row.origin.kind is kind]

    def kinds(self) -> dict[SourceKind, int]:
        """Return how many sentences there are of each kind."""
        return dict(Counter(origin.kind for origin in self.origins))

    def sha256(self) -> str:
        """Return a hash over the sentences, their logits and the probabilities of their tokens."""
        digest = hashlib.sha256("\n".join(self.sentences).encode())
        probs = [targets.probs.astype("<f2") for targets in self.top_k if targets is not None]
        for numbers in (self.logits, *self.word_logits, *probs):
            digest.update(numbers.tobytes())
        return digest.hexdigest()

    def summary(self) -> list[str]:
        """Return a line for each kind of source: how many, and how the teacher labels them."""
        labels = self.description["labels"]
        predicted = self.logits.argmax(1)
        lines = []
        for kind, total in self.kinds().items():
            counts = Counter(predicted[[o.kind is kind for o in self.origins]].tolist())
            percent = ", ".join(
                f"{100 * counts[i] / total:.0f} % {label}" for i, label in enumerate(labels)
            )
            lines.append(f"{kind}: {total} sentences, labelled {percent}")
        return lines


def read_transfer_set(folder: Path) -> TransferSet:
    """Read a finished set; a sentence that two shards have counts once.

    Raises:
        UserError: There is no set, or an unfinished or damaged one.
    """
    if not (folder / DESCRIPTION).is_file():
        raise UserError(f"{folder} holds no transfer set ({DESCRIPTION} is missing).")
    description = read_json(folder / DESCRIPTION)
    try:
        shards, classes = list_shards(folder, description), len(description["labels"])
        str(description["teacher"]["sha256"] + description["teacher"]["path"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / DESCRIPTION} is damaged ({error}).") from error
    missing = [shard.path for shard in shards if not shard.path.is_file()]
    if missing:
        raise UserError(
            f"the transfer set in {folder} is unfinished: {len(missing)} of {len(shards)} shards "
            f"are missing ({missing[0].name}, …); repeat the command that made it, to continue."
        )
    unique: dict[str, tuple[LabelledSentence, TopKTargets | None]] = {}
    for shard in shards:
        rows = read_shard(shard.path, classes)
        top_k: list[TopKTargets | None] = [None] * len(rows)
        if shard.top_k_path.is_file():
            top_k = [*read_top_k(shard.top_k_path, len(rows))]
        for row, targets in zip(rows, top_k, strict=True):
            unique.setdefault(normal(row.sentence), (row, targets))
    return TransferSet.from_rows(
        [row for row, _ in unique.values()],
        [targets for _, targets in unique.values()],
        description,
    )


def check_teacher(transfer_set: TransferSet, folder: Path, sha256: str) -> None:
    """Check that the teacher of this hash labelled the set in `folder`.

    Raises:
        UserError: Another teacher did.
    """
    teacher = transfer_set.description["teacher"]
    if teacher["sha256"] != sha256:
        raise UserError(
            f"the transfer set in {folder} was labelled by another teacher ({teacher['path']}, "
            f"{teacher['sha256'][:12]}), not by this one ({sha256[:12]}); make one with `potstill "
            "transfer`, or name another."
        )


def check_words(transfer_set: TransferSet, folder: Path) -> None:
    """Check that every sentence of the set in `folder` has logits after its words.

    Raises:
        UserError: Some have none.
    """
    without = sum(not len(logits) for logits in transfer_set.word_logits)
    if without:
        raise UserError(
            f"{without} sentences of the transfer set in {folder} have no logits after each "
            f"word; make a set with `relabel` {folder}, which labels its sentences again, or set "
            "`word_loss_weight` 0."
        )


def check_top_k(transfer_set: TransferSet, folder: Path) -> None:
    """Check that every sampled sentence of the set in `folder` has top-k targets.

    Raises:
        UserError: Some have none.
    """
    pairs = zip(transfer_set.origins, transfer_set.top_k, strict=True)
    without = sum(o.kind is SourceKind.SAMPLED and targets is None for o, targets in pairs)
    if without:
        raise UserError(
            f"{without} sampled sentences of the transfer set in {folder} lack the decoder's "
            "next-token probabilities; repeat the command that made it, which adds them, or set "
            "`pretrain_targets` hard."
        )
