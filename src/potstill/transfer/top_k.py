"""Soft targets of a language model: the decoder's most probable next tokens, and their file format.

A sampled sentence is a single draw from the decoder's distribution; a student that learns from the
probabilities themselves learns more from each sentence. Of a vocabulary of tens of thousands the
most probable few are enough (Kuncoro et al. 2019, *Scalable Syntax-Aware Language Models Using
Knowledge Distillation*, section 3).
"""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

from potstill.errors import UserError
from potstill.files import write_bytes

TOP_K = 32  # next tokens per position whose probabilities are stored


@dataclass(frozen=True)
class TopKTargets:
    """The most probable next tokens after each token of a sentence but the last.

    The sentence has T + 1 tokens of the decoder's; positions 0 to T - 1 have targets.

    Attributes:
        offsets: (T,) character offsets at which the first T tokens end.
        token_ids: (T, TOP_K) the most probable next tokens, in descending order.
        probs: (T, TOP_K) their probabilities, given that the sentence does not end here.
        next_ids: (T,) the tokens that do follow.
    """

    offsets: np.ndarray
    token_ids: np.ndarray
    probs: np.ndarray
    next_ids: np.ndarray


EMPTY = TopKTargets(
    np.empty(0, np.uint16),
    np.empty((0, TOP_K), np.int32),
    np.empty((0, TOP_K), np.float16),
    np.empty(0, np.int32),
)
# The arrays of a file, in its order, and the fields that they hold.
FIELDS = {"ends": "offsets", "tokens": "token_ids", "chances": "probs", "following": "next_ids"}


def write_top_k(file: Path, targets: list[TopKTargets]) -> None:
    """Write the targets of a shard's sentences, whole or not at all."""
    arrays = {
        name: np.concatenate([getattr(each, field) for each in (EMPTY, *targets)])
        for name, field in FIELDS.items()
    }
    if arrays["tokens"].max(initial=0) < 2**16:
        arrays["tokens"] = arrays["tokens"].astype(np.uint16)
    body = BytesIO()
    arrays["counts"] = np.array([len(each.offsets) for each in targets])
    np.savez_compressed(body, allow_pickle=False, **arrays)
    write_bytes(file, body.getvalue())


def read_top_k(file: Path, sentences: int) -> list[TopKTargets]:
    """Return the targets of each of a shard's `sentences`.

    Raises:
        UserError: The file is damaged or belongs to another shard.
    """
    try:
        with np.load(file) as archive:
            counts = archive["counts"]
            arrays = [archive[name] for name in FIELDS]
        if len(counts) != sentences or {len(array) for array in arrays} != {counts.sum()}:
            raise ValueError("it does not fit its sentences")
    except Exception as error:  # zipfile, zlib and numpy raise their own kinds
        raise UserError(
            f"{file} is damaged ({error}); remove it and run `potstill transfer` again, which "
            "makes another."
        ) from error
    parts = (np.split(array, counts.cumsum()[:-1]) for array in arrays)
    return [TopKTargets(*fields) for fields in zip(*parts, strict=True)][:sentences]
