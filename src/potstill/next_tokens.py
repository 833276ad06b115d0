"""What the decoder that a sentence was sampled from held likely after each of its tokens.

A sentence is but one draw from these; a student that learns from the chances themselves learns more
of each sentence. As Kuncoro et al. 2019, *Scalable Syntax-Aware Language Models Using Knowledge
Distillation*, section 3: of a vocabulary of tens of thousands the likeliest tokens do.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, pre_tokenizers
from torch import Tensor

from potstill import UserError, classifier
from potstill.batching import Batch, predict
from potstill.checkpoint import write_bytes
from potstill.sampling import LIKELIEST, ROWS, LanguageModel, Sampled, likely_next


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


@torch.no_grad()
def likeliest(model: LanguageModel, tokenizer: Any, sentences: list[str]) -> list[NextTokens]:
    """By `model`, each process for sentences of its own."""
    positions = getattr(model.whole.config, "max_position_embeddings", None) or 1024
    tokens, _ = classifier.encode(tokenizer, sentences, positions, model.start)
    offsets = tokenizer(sentences, add_special_tokens=False, return_offsets_mapping=True)

    def answer(batch: Batch) -> Iterable[tuple[Tensor, Tensor]]:
        places = torch.arange(batch.input_ids.shape[1], device=batch.input_ids.device)
        # Neither of the start, which the student has not, nor of the last.
        asked = (places > 0) & (places < batch.lengths[:, None] - 1)
        states = model(batch.input_ids)[asked].split(ROWS)
        found = likely_next((model.head(part) for part in states), model.end)
        likely, chances = (each.split(asked.sum(1).tolist()) for each in found)
        return list(zip(likely, chances, strict=True))

    found = []
    pairs = predict(model, tokens, answer, together=False)
    for (likely, chances), read, spans in zip(
        pairs, tokens, offsets["offset_mapping"], strict=True
    ):
        ends = np.array([end for _, end in spans[: len(likely)]], np.uint16)
        following = np.array(read[2:], np.int32)
        found.append(NextTokens(ends, likely.numpy(), chances.numpy(), following))
    return found


def of_sampled(tokenizer: Any, sentence: str, sampled: Sampled) -> NextTokens | None:
    """What was likely where `sampled`, whose text `sentence` is, was drawn; None where `tokenizer`
    makes other tokens of the text, so that `likeliest` has to look again."""
    if sampled.likely is None or not sampled.tokens:
        return None
    read = tokenizer(sentence, add_special_tokens=False, return_offsets_mapping=True)
    if read["input_ids"] != sampled.tokens:
        return None
    ends = np.array([end for _, end in read["offset_mapping"][:-1]], np.uint16)
    tokens, chances = (x.numpy() for x in sampled.likely)
    return NextTokens(ends, tokens, chances, np.array(sampled.tokens[1:], np.int32))


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


class SoftTargets:
    """What a student's language model is to hold likely after each of its own tokens, made of the
    decoder's chances for the decoder's tokens.

    A token of the decoder's stands for the first of those that the student makes of it. Where the
    decoder has no token that ends where the student's does, or where the tokens that follow do not
    agree, the student learns from the token that follows alone. That token also stands for all that
    is not among the likeliest, where it is none of these: over many draws, their chances.

    Args:
        tokenizer: the student's.
        vocabulary: the decoder's tokens.
        sentences, found: the sentences that the language model learns from and what the decoder
            held likely in them, None where that is not known.
        tokens: of each sentence, by the student's tokenizer.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        vocabulary: list[str],
        sentences: list[str],
        found: list[NextTokens | None],
        tokens: list[list[int]],
    ):
        own = tokenizer.get_vocab()
        first = [own[t] if t in own else _first(tokenizer, t) for t in vocabulary]
        self.first = torch.tensor(first)
        rows, listed, begins = [], [], [0]
        at = 0
        for sentence, one, mine in zip(
            tokenizer.encode_batch(sentences), found, tokens, strict=True
        ):
            row = np.full(max(len(mine) - 1, 0), -1)
            hit = np.zeros(len(row), bool)
            if one is not None and len(one.ends):
                ends = np.array([end for _, end in sentence.offsets[: len(row)]])
                place = np.minimum(np.searchsorted(one.ends, ends), len(one.ends) - 1)
                follows = self.first.numpy()[one.following[place]]
                good = (one.ends[place] == ends) & (follows == mine[1:])
                row[good] = at + place[good]
                hit = (one.tokens[place] == one.following[place][:, None]).any(1)
                at += len(one.ends)
            rows.append(row)
            listed.append(hit)
            begins.append(begins[-1] + len(row))
        known = [NOTHING, *(one for one in found if one is not None)]
        self.rows, self.listed = map(np.concatenate, (rows, listed))
        self.begins = np.array(begins)
        self.tokens = np.concatenate([one.tokens for one in known])
        self.chances = np.concatenate([one.chances for one in known])

    def share(self) -> float:
        """Of the tokens to predict, those whose chances are known."""
        return float((self.rows >= 0).mean())

    def of(self, index: Tensor, following: Tensor) -> tuple[Tensor, Tensor]:
        """For each token but the last of the sentences `index`, one after the other: places in the
        student's vocabulary and their shares, each (N, LIKELIEST + 1).

        following: (N,) the tokens that do follow.
        """
        spans = [np.arange(self.begins[i], self.begins[i + 1]) for i in index.tolist()]
        span = np.concatenate(spans)
        rows = self.rows[span]
        known = torch.from_numpy(rows >= 0)
        places = self.first[torch.from_numpy(self.tokens[rows].astype(np.int64))]
        shares = torch.from_numpy(self.chances[rows].astype(np.float32)) * known[:, None]
        alone = ~(known & torch.from_numpy(self.listed[span]))
        return (
            torch.cat([places, following[:, None]], dim=1),
            torch.cat([shares, alone[:, None].float()], dim=1),
        )


def _first(tokenizer: Tokenizer, token: str) -> int:
    """The first of the tokens that `tokenizer` makes of one of another vocabulary."""
    made = tokenizer.model.tokenize(token) if token else []
    return made[0].id if made else 0
