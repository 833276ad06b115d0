"""What the decoder that a sentence was sampled from held likely after each of its tokens.

A sentence is but one draw from these; a student that learns from the chances themselves learns more
of each sentence. As Kuncoro et al. 2019, *Scalable Syntax-Aware Language Models Using Knowledge
Distillation*, section 3: of a vocabulary of tens of thousands the likeliest tokens do.
"""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import pre_tokenizers

from potstill.errors import UserError
from potstill.files import write_bytes

LIKELIEST = 32  # next tokens of which the chances are kept


@dataclass(frozen=True)
class NextTokens:
    """Of a sentence of T + 1 of the decoder's tokens: the characters that the first T end at, (T,),
    the likeliest tokens behind each, (T, LIKELIEST), their chances given that the sentence goes on,
    and the tokens that do follow, (T,)."""

    ends: np.ndarray
    tokens: np.ndarray
    chances: np.ndarray
    following: np.ndarray


NOTHING = NextTokens(
    np.empty(0, np.uint16),
    np.empty((0, LIKELIEST), np.int32),
    np.empty((0, LIKELIEST), np.float16),
    np.empty(0, np.int32),
)


def write_next_tokens(file: Path, found: list[NextTokens]) -> None:
    """Writes what belongs to the sentences of a shard, whole or not at all."""
    arrays = {
        name: np.concatenate([getattr(one, name) for one in (NOTHING, *found)])
        for name in ("ends", "tokens", "chances", "following")
    }
    if arrays["tokens"].max(initial=0) < 2**16:
        arrays["tokens"] = arrays["tokens"].astype(np.uint16)
    body = BytesIO()
    arrays["counts"] = np.array([len(one.ends) for one in found])
    np.savez_compressed(body, allow_pickle=False, **arrays)
    write_bytes(file, body.getvalue())


def read_next_tokens(file: Path, sentences: int) -> list[NextTokens]:
    """Of each of a shard's sentences.

    Raises:
        UserError: it is damaged or of another shard.
    """
    try:
        with np.load(file) as arrays:
            counts, ends, tokens, chances, following = (
                arrays[name] for name in ("counts", "ends", "tokens", "chances", "following")
            )
        if len(counts) != sentences or {len(a) for a in (ends, tokens, chances, following)} != {
            counts.sum()
        }:
            raise ValueError("it does not fit its sentences")
    except Exception as error:  # zipfile, zlib and numpy raise their own kinds
        raise UserError(
            f"{file} is damaged ({error}); remove it and run `potstill transfer` again, which "
            "makes it anew."
        ) from error
    cuts = counts.cumsum()[:-1]
    parts = (np.split(array, cuts) for array in (ends, tokens, chances, following))
    return [NextTokens(*one) for one in zip(*parts, strict=True)][:sentences]


def vocabulary(tokenizer: Any) -> list[str]:
    """A decoder's tokens, as byte-level BPE writes them."""
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if type(getattr(backend, "decoder", None)).__name__ == "ByteLevel":
        return list(tokens)
    spell = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    spelt = [spell.pre_tokenize_str(token.replace("▁", " ")) for token in tokens]
    return ["".join(part for part, _ in parts) for parts in spelt]
