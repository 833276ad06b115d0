"""The transfer set: unlabelled sentences with a teacher's logits, kept in shards.

A folder with `transfer.json`, what the set was made of and for which teacher, and compressed JSON
lines, one file a shard: {"sentence", "source", "parent", "logits", "word_logits"}. Beside a shard
of sampled sentences lies what the decoder held likely after each of their tokens
(`top_k.py`), and `vocabulary.json`, what its tokens are. Each file is written whole or not at
all, so that an interrupted run goes on with the first that is missing.
"""

import gzip
import hashlib
import json
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from potstill.errors import UserError
from potstill.files import read_json, write_bytes
from potstill.transfer.top_k import TopKTargets, read_top_k

DESCRIPTION = "transfer.json"
VOCABULARY = "vocabulary.json"
SHARD = 4096  # sentences


@dataclass(frozen=True)
class TransferSet:
    """N sentences, the teacher's logits of them, (N, classes), and after each one's W words,
    (W, classes), what the decoder held likely after each token of those sampled, where each comes
    from ("sampled", "edited:" and the edits, "own") and the sentence that an edited one was made
    of, else ""."""

    sentences: list[str]
    logits: np.ndarray
    word_logits: list[np.ndarray]
    top_k: list[TopKTargets | None]
    sources: list[str]
    parents: list[str]
    description: dict[str, Any]

    def without(self, sentences: list[str]) -> "TransferSet":
        """Those that neither are nor were made of one of `sentences`."""
        known = {normal(s) for s in sentences}
        pairs = zip(self.sentences, self.parents, strict=True)
        kept = [i for i, pair in enumerate(pairs) if not known & {normal(s) for s in pair}]
        return TransferSet(
            [self.sentences[i] for i in kept],
            self.logits[kept],
            [self.word_logits[i] for i in kept],
            [self.top_k[i] for i in kept],
            [self.sources[i] for i in kept],
            [self.parents[i] for i in kept],
            self.description,
        )

    def sha256(self) -> str:
        """Hash over the sentences, their logits and the chances of their tokens."""
        digest = hashlib.sha256("\n".join(self.sentences).encode())
        chances = [one.probs.astype("<f2") for one in self.top_k if one is not None]
        for numbers in (self.logits, *self.word_logits, *chances):
            digest.update(numbers.tobytes())
        return digest.hexdigest()

    def summary(self) -> list[str]:
        """A line for each kind of source: how many, and how the teacher labels them."""
        labels = self.description["labels"]
        kinds = [source.split(":")[0] for source in self.sources]
        called = self.logits.argmax(1)
        lines = []
        for kind, total in Counter(kinds).items():
            mine = Counter(called[[i for i, k in enumerate(kinds) if k == kind]].tolist())
            shares = ", ".join(f"{100 * mine[c] / total:.0f} % {n}" for c, n in enumerate(labels))
            lines.append(f"{kind}: {total} sentences; by the teacher {shares}")
        return lines


def normal(sentence: str) -> str:
    """What makes two sentences duplicates: their words, whatever the case and the final stop."""
    return " ".join(sentence.casefold().split()).rstrip(" .?!")


def shard_file(folder: Path, kind: str, number: int) -> Path:
    return folder / f"{kind}-{number:05d}.jsonl.gz"


def top_k_file(shard: Path) -> Path:
    """Where what the decoder held likely in the sentences of a shard is kept."""
    return shard.with_name(shard.name.replace(".jsonl.gz", ".next.npz"))


def write_shard(file: Path, rows: list[dict[str, Any]]) -> None:
    """Writes a shard, whole or not at all."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    # No time in the file: the same rows make the same bytes.
    write_bytes(file, gzip.compress(text.encode(), mtime=0))


def read_shard(file: Path, classes: int) -> list[dict[str, Any]]:
    """The rows of a shard.

    Raises:
        UserError: it is damaged.
    """
    try:
        if not (body := file.read_bytes()):
            raise EOFError("it is empty")
        text = gzip.decompress(body).decode()
        # Not splitlines: a sentence may hold one of Unicode's other line ends.
        rows = [json.loads(line) for line in text.split("\n") if line]
        for row in rows:
            sizes = {len(one) for one in (row["logits"], *row.setdefault("word_logits", []))}
            if sizes != {classes} or not row["sentence"] or not row["source"]:
                raise ValueError(f"{row} has not the form of a row")
            row["parent"] = str(row["parent"])
    except (OSError, EOFError, ValueError, KeyError, TypeError, zlib.error) as error:
        raise UserError(
            f"{file} is damaged ({error}); remove it and run `potstill transfer` again, which "
            "makes it anew."
        ) from error
    return rows


def shards(description: dict[str, Any]) -> list[tuple[str, int]]:
    """Kind and number of every shard that a set consists of."""
    return [
        (kind, number)
        for kind, sentences in description["sentences"].items()
        for number in range(-(-sentences // SHARD))
    ]


def check_teacher(found: TransferSet, folder: Path, sha256: str) -> None:
    """Raises UserError unless the teacher of this hash labelled the set `found` in `folder`."""
    teacher = found.description["teacher"]
    if teacher["sha256"] != sha256:
        raise UserError(
            f"the transfer set in {folder} was labelled by another teacher ({teacher['path']}, "
            f"{teacher['sha256'][:12]}), not by this one ({sha256[:12]}); make one with `potstill "
            "transfer`, or name another."
        )


def check_words(found: TransferSet, folder: Path) -> None:
    """Raises UserError unless every sentence of the set in `folder` has logits after its words."""
    without = sum(not len(each) for each in found.word_logits)
    if without:
        raise UserError(
            f"{without} sentences of the transfer set in {folder} have no logits after each word: "
            f"`potstill transfer --relabel {folder}` labels its sentences anew, "
            "`word_loss_weight` 0 goes without."
        )


def check_top_k(found: TransferSet, folder: Path) -> None:
    """Raises UserError unless every sampled sentence of the set in `folder` has its decoder's
    chances beside it."""
    pairs = zip(found.sources, found.top_k, strict=True)
    without = sum(source == "sampled" and one is None for source, one in pairs)
    if without:
        raise UserError(
            f"{without} sampled sentences of the transfer set in {folder} lack what the decoder "
            "held likely in them: the command that made it adds that, `pretrain_targets` hard "
            "goes without."
        )


def read_vocabulary(folder: Path) -> list[str]:
    """The tokens of the decoder that a set's sentences were sampled from, as byte-level BPE writes
    them.

    Raises:
        UserError: they are missing or damaged.
    """
    found = read_json(folder / VOCABULARY)
    if not isinstance(found, list) or not all(isinstance(token, str) for token in found):
        raise UserError(
            f"{folder / VOCABULARY} is damaged; remove it and run `potstill transfer` again, which "
            "makes it anew."
        )
    return found


def read_transfer_set(folder: Path) -> TransferSet:
    """Reads a finished set; sentences that two shards have count once.

    Raises:
        UserError: no set there, or an unfinished or damaged one.
    """
    if not (folder / DESCRIPTION).is_file():
        raise UserError(f"{folder} holds no transfer set ({DESCRIPTION} is missing).")
    description = read_json(folder / DESCRIPTION)
    try:
        wanted, classes = shards(description), len(description["labels"])
        str(description["teacher"]["sha256"] + description["teacher"]["path"])
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{folder / DESCRIPTION} is damaged ({error}).") from error
    files = [shard_file(folder, *shard) for shard in wanted]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise UserError(
            f"the transfer set in {folder} is unfinished: {len(missing)} of {len(files)} shards "
            f"are missing ({missing[0].name}, …); the command that made it goes on with it."
        )
    rows: dict[str, dict[str, Any]] = {}
    for file in files:
        shard = read_shard(file, classes)
        likely: list[TopKTargets | None] = [None] * len(shard)
        if (beside := top_k_file(file)).is_file():
            likely = [*read_top_k(beside, len(shard))]
        for row, one in zip(shard, likely, strict=True):
            rows.setdefault(normal(row["sentence"]), row | {"top_k": one})
    return TransferSet(
        [row["sentence"] for row in rows.values()],
        np.array([row["logits"] for row in rows.values()], np.float32).reshape(-1, classes),
        [np.array(r["word_logits"], np.float32).reshape(-1, classes) for r in rows.values()],
        [row["top_k"] for row in rows.values()],
        [row["source"] for row in rows.values()],
        [row["parent"] for row in rows.values()],
        description,
    )
