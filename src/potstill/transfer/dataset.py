"""The transfer set: unlabelled sentences with a teacher's logits, read from its files.

Reading needs neither torch nor transformers. A set is opened by its description and the footers of
its shards; its sentences are read a shard at a time, so that a set may be larger than memory.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from potstill.errors import UserError
from potstill.files import read_json
from potstill.transfer.convert import is_old
from potstill.transfer.duplicates import SeenSentences, normal_hashes
from potstill.transfer.sentences import LabelledSentence, SourceKind
from potstill.transfer.shards import (
    DESCRIPTION,
    Shard,
    list_shards,
    read_metadata,
    read_shard,
    read_table,
    read_top_k,
)
from potstill.transfer.table import ShardMetadata
from potstill.transfer.top_k import TopKTargets


@dataclass(frozen=True)
class TransferSet:
    """A finished set on disk.

    Attributes:
        folder: Where it is.
        description: What it is made of and for which teacher, as in `transfer.json`.
        shards: Its files.
        metadata: What the footer of each says.
    """

    folder: Path
    description: dict[str, Any]
    shards: list[Shard]
    metadata: list[ShardMetadata]

    def __len__(self) -> int:
        """Return how many sentences it has, duplicates among them."""
        return sum(each.rows for each in self.metadata)

    @property
    def labels(self) -> list[str]:
        return self.description["labels"]

    @property
    def has_top_k(self) -> bool:
        """Whether any sentence has top-k targets."""
        return any(m.without_top_k is not None and m.without_top_k < m.rows for m in self.metadata)

    def tables(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """Yield each shard, or some of its columns, as a table (`table.py`)."""
        for shard in self.shards:
            yield read_table(shard.path, columns)

    def rows(self) -> Iterator[LabelledSentence]:
        """Yield every sentence."""
        for shard in self.shards:
            yield from read_shard(shard.path, len(self.labels))

    def sha256(self) -> str:
        """Return a hash over the bytes of all shards."""
        digest = hashlib.sha256()
        for shard in self.shards:
            with shard.path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def summary(self) -> list[str]:
        """Return a line for each kind of source: how many, and how the teacher labels them."""
        labelled: dict[SourceKind, np.ndarray] = {}
        for shard, metadata in zip(self.shards, self.metadata, strict=True):
            counts = labelled.get(shard.kind, np.zeros(len(self.labels), int))
            labelled[shard.kind] = counts + metadata.labelled
        lines = []
        for kind, counts in labelled.items():
            total = counts.sum()
            percent = ", ".join(
                f"{100 * n / max(total, 1):.0f} % {label}"
                for n, label in zip(counts, self.labels, strict=True)
            )
            lines.append(f"{kind}: {total} sentences, labelled {percent}")
        return lines

    def take(self, indices: np.ndarray) -> list[LabelledSentence]:
        """Return the sentences at `indices`, in that order."""
        offsets = np.cumsum([0, *(each.rows for each in self.metadata)])
        in_shard = np.searchsorted(offsets, indices, side="right") - 1
        shards = {n: read_shard(self.shards[n].path, len(self.labels)) for n in set(in_shard)}
        pairs = zip(in_shard, indices, strict=True)
        return [shards[n][int(i - offsets[n])] for n, i in pairs]

    def select(self, without: list[str]) -> "Selection":
        """Choose the sentences to learn from: each once, and none that is or was made of one of
        `without`."""
        excluded, seen = normal_hashes(without), SeenSentences()
        masks, duplicates = [], 0
        for shard in self.shards:
            columns = ["sentence", "parent"] if shard.kind is SourceKind.EDITED else ["sentence"]
            table = read_table(shard.path, columns)
            hashes = normal_hashes(table["sentence"].to_pylist())
            mask = seen.add(hashes)
            duplicates += int((~mask).sum())
            mask &= ~np.isin(hashes, excluded)
            if "parent" in columns:
                mask &= ~np.isin(normal_hashes(table["parent"].to_pylist()), excluded)
            masks.append(mask)
        return Selection(self, masks, duplicates)


class Row(NamedTuple):
    """A sentence and its top-k targets, if it has any."""

    labelled: LabelledSentence
    top_k: TopKTargets | None


@dataclass(frozen=True)
class Selection:
    """Some sentences of a set.

    Attributes:
        transfer_set: The set.
        masks: For each shard, (rows,) True for the sentences that are chosen.
        duplicates: How many were left out because they are in the set twice.
    """

    transfer_set: TransferSet
    masks: list[np.ndarray]
    duplicates: int

    def __len__(self) -> int:
        return sum(int(mask.sum()) for mask in self.masks)

    @property
    def excluded(self) -> int:
        """How many were left out that are no duplicates."""
        return len(self.transfer_set) - self.duplicates - len(self)

    def kinds(self) -> dict[SourceKind, int]:
        """Return how many sentences there are of each kind."""
        counts: Counter[SourceKind] = Counter()
        for shard, mask in zip(self.transfer_set.shards, self.masks, strict=True):
            counts[shard.kind] += int(mask.sum())
        return dict(counts)

    def part(self, kind: SourceKind, start: int, stop: int) -> list[Row]:
        """Return the sentences of a kind from number `start` up to `stop`, with their targets."""
        rows: list[Row] = []
        for shard, mask in zip(self.transfer_set.shards, self.masks, strict=True):
            if shard.kind is not kind:
                continue
            count = int(mask.sum())
            if start < count and stop > 0:
                pairs = zip(
                    read_shard(shard.path, len(self.transfer_set.labels)),
                    read_top_k(shard.path),
                    strict=True,
                )
                chosen = [Row(*pair) for pair, keep in zip(pairs, mask, strict=True) if keep]
                rows += chosen[max(start, 0) : stop]
            start, stop = start - count, stop - count
        return rows

    def sentences(self, limit: int | None = None) -> Iterator[str]:
        """Yield the sentences, or about `limit` of them at most: as large a part of each shard."""
        part = 1.0 if limit is None else min(1.0, limit / max(1, len(self)))
        for table, mask in zip(self.transfer_set.tables(["sentence"]), self.masks, strict=True):
            chosen = table["sentence"].filter(pa.array(mask)).to_pylist()
            yield from chosen[: round(part * len(chosen))]


def read_transfer_set(folder: Path) -> TransferSet:
    """Open a finished set.

    Raises:
        UserError: There is no set, or an unfinished, a damaged or an old one.
    """
    if not (folder / DESCRIPTION).is_file():
        raise UserError(f"{folder} holds no transfer set ({DESCRIPTION} is missing).")
    description = read_json(folder / DESCRIPTION)
    try:
        shards, classes = list_shards(folder, description), len(description["labels"])
        str(description["teacher"]["sha256"] + description["teacher"]["path"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / DESCRIPTION} is damaged ({error}).") from error
    check_converted(folder, shards)
    missing = [shard.path for shard in shards if not shard.path.is_file()]
    if missing:
        raise UserError(
            f"the transfer set in {folder} is unfinished: {len(missing)} of {len(shards)} shards "
            f"are missing ({missing[0].name}, …); repeat the command that made it, to continue."
        )
    metadata = [read_metadata(shard.path, classes) for shard in shards]
    return TransferSet(folder, description, shards, metadata)


def check_converted(folder: Path, shards: list[Shard]) -> None:
    """Check that none of a set's shards is of the old format.

    Raises:
        UserError: Some are.
    """
    if is_old(shards):
        raise UserError(
            f"the transfer set in {folder} is of an earlier version, or half converted; convert "
            f"it: `potstill transfer SR` `convert` `transfer_path` {folder}."
        )


def check_teacher(transfer_set: TransferSet, sha256: str) -> None:
    """Check that the teacher of this hash labelled a set.

    Raises:
        UserError: Another teacher did.
    """
    teacher = transfer_set.description["teacher"]
    if teacher["sha256"] != sha256:
        raise UserError(
            f"the transfer set in {transfer_set.folder} was labelled by another teacher "
            f"({teacher['path']}, {teacher['sha256'][:12]}), not by this one ({sha256[:12]}); make "
            "one with `potstill transfer`, or name another."
        )


def check_words(transfer_set: TransferSet) -> None:
    """Check that every sentence of a set has logits after its words.

    Raises:
        UserError: Some have none.
    """
    folder, without = transfer_set.folder, sum(m.without_words for m in transfer_set.metadata)
    if without:
        raise UserError(
            f"{without} sentences of the transfer set in {folder} have no logits after each "
            f"word; make a set with `relabel` {folder}, which labels its sentences again, or set "
            "`word_loss_weight` 0."
        )


def check_top_k(transfer_set: TransferSet) -> None:
    """Check that every sampled sentence of a set has top-k targets.

    Raises:
        UserError: Some have none.
    """
    pairs = zip(transfer_set.shards, transfer_set.metadata, strict=True)
    without = sum(
        m.rows if m.without_top_k is None else m.without_top_k
        for shard, m in pairs
        if shard.kind is SourceKind.SAMPLED
    )
    if without:
        raise UserError(
            f"{without} sampled sentences of the transfer set in {transfer_set.folder} lack the "
            "decoder's next-token probabilities; repeat the command that made it, with "
            "`soft_targets`, which adds them, or set `pretrain_targets` hard."
        )
