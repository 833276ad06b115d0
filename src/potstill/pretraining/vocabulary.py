"""A student's vocabulary that is the beginning of a decoder's.

A byte-level BPE applies its merges in the order of their rank. So text that is tokenised by the
whole vocabulary and then taken apart is the text tokenised by the first merges alone: what a
decoder says of its tokens holds for the student's at the same ends.
"""

import json
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from potstill.data.ragged import RaggedTokens, offsets_of
from potstill.errors import UserError

# No UTF-8 text has these bytes.
NEVER = {0xC0, 0xC1, *range(0xF5, 0x100)}


@dataclass(frozen=True)
class Vocabulary:
    """A decoder's vocabulary and its beginning.

    Attributes:
        tokenizer: Of the student.
        parts: For each token of the decoder, the student's tokens that it falls apart into.
        spellings: For each token of the decoder, how byte-level BPE spells it.
    """

    tokenizer: Tokenizer
    parts: list[list[int]]
    spellings: list[str]


def truncate_vocabulary(tokenizer: Any, size: int) -> Vocabulary:
    """Return the first `size` tokens of a decoder's as a student's vocabulary.

    Bytes that the decoder has no token for get the numbers of its special tokens, which text does
    not contain, so that no text loses a byte; token 0 pads, and stays what it is.

    Args:
        tokenizer: The decoder's, of transformers.
        size: Tokens of the student.

    Raises:
        UserError: It is no byte-level BPE, its merges are in another order than its tokens, or it
            has too few tokens, or too few special ones for the missing bytes.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    described = json.loads(backend.to_str()) if backend else {}
    model = described.get("model", {})
    byte_level = '"ByteLevel"' in json.dumps(described.get("pre_tokenizer"))
    if model.get("type") != "BPE" or not byte_level or described.get("normalizer"):
        raise UserError(
            "the decoder's tokenizer is no byte-level BPE, whose first tokens a base takes; name "
            "another `gpt_variant`."
        )
    ids: dict[str, int] = model["vocab"]
    pairs = [tuple(m if isinstance(m, list) else m.split(" ")) for m in model["merges"]]
    merges = [(ids[left], ids[right], ids[left + right]) for left, right in pairs]
    kept = [pair for pair, (_, _, merged) in zip(pairs, merges, strict=True) if merged < size]
    special = {token["id"] for token in described["added_tokens"]}
    n_tokens = max(*ids.values(), *special) + 1 if special else max(ids.values()) + 1
    if size > len(ids) or pairs[: len(kept)] != kept:
        raise UserError(
            f"`vocab_size` {size} is not the beginning of the decoder's {len(ids)} tokens; name "
            "another `vocab_size`."
        )
    parts = [[token] for token in range(n_tokens)]
    for left, right, merged in merges:
        if merged >= size:
            parts[merged] = parts[left] + parts[right]
    for token in special:  # text has none; where a decoder writes one, it is any token
        parts[token] = [min(token, size - 1)]
    vocab = {token: number for token, number in ids.items() if number < size}
    described["model"] |= {
        "vocab": _with_all_bytes(vocab, special),
        "merges": list(map(list, kept)),
    }
    described |= {"added_tokens": [], "post_processor": None}
    spellings = [""] * n_tokens
    for token, number in ids.items():
        spellings[number] = token
    return Vocabulary(Tokenizer.from_str(json.dumps(described)), parts, spellings)


def _with_all_bytes(vocab: dict[str, int], special: set[int]) -> dict[str, int]:
    """Return `vocab` with the missing bytes in place of special tokens."""
    symbols = enumerate(_byte_symbols())
    missing = [s for byte, s in symbols if s not in vocab and byte not in NEVER]
    free = sorted(number for number in vocab.values() if number in special and number)
    if len(free) < len(missing):
        raise UserError(
            f"`vocab_size` {len(vocab)} leaves {len(missing)} bytes without a token; name a higher "
            "one, or another `gpt_variant`."
        )
    replaced = dict(zip(free, missing, strict=False))
    by_number = {number: replaced.get(number, token) for token, number in vocab.items()}
    return {by_number[number]: number for number in sorted(by_number)}


def _byte_symbols() -> list[str]:
    """Return how byte-level BPE spells each of the 256 bytes (Radford et al. 2019, encoder.py):
    printable characters of Latin-1 stand for themselves, the others follow from 256 on."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


class TokenSplitter:
    """Maps token ids of a decoder to those of a student whose vocabulary is its beginning."""

    def __init__(self, parts: list[list[int]], device: torch.device):
        counts = torch.tensor([len(part) for part in parts])
        self.offsets = offsets_of(counts).to(device)
        self.values = torch.tensor([t for part in parts for t in part]).to(device)
        self.first = torch.tensor([part[0] for part in parts]).to(device)

    def split(self, tokens: RaggedTokens) -> tuple[RaggedTokens, Tensor]:
        """Return the student's tokens of each text.

        Returns:
            The tokens, and for each of them, (total,), the position in `tokens.values` of the
            decoder's token that ends there, -1 within one.
        """
        ids = tokens.values.long()
        counts = self.offsets[ids + 1] - self.offsets[ids]
        offsets = offsets_of(counts)
        total = int(offsets[-1])
        within = torch.arange(total, device=ids.device)
        within -= torch.repeat_interleave(offsets[:-1], counts, output_size=total)
        starts = torch.repeat_interleave(self.offsets[ids], counts, output_size=total)
        ends_here = torch.full((total,), -1, dtype=torch.long, device=ids.device)
        ends_here[offsets[1:] - 1] = torch.arange(len(ids), device=ids.device)
        values = self.values[starts + within]
        return RaggedTokens(values, offsets[tokens.offsets]), ends_here
