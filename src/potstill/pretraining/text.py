"""General text that a decoder wrote, with what it held probable and its states: in memory, in
files, and in a student's tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from potstill.data.ragged import RaggedTokens, concatenate, offsets_of
from potstill.errors import UserError
from potstill.files import write_tensors
from potstill.pretraining.vocabulary import TokenSplitter, Vocabulary
from potstill.transfer.slots import SampledBlock

ENDINGS = (".", "!", "?")  # of a sentence, perhaps before a quotation mark


@dataclass(frozen=True)
class GeneralText:
    """N texts in a decoder's tokens, on one device.

    Attributes:
        tokens: The texts.
        top_ids: (total, K) the first of the student's tokens in each of the most probable next
            tokens after each token.
        top_probs: (total, K) their probabilities given that the text goes on, fp16.
        states: (total, width) the decoder's states at each token, as `StateBasis` projects them,
            fp16.
    """

    tokens: RaggedTokens
    top_ids: Tensor
    top_probs: Tensor
    states: Tensor

    def to(self, device: torch.device) -> "GeneralText":
        """Return the texts on `device`."""
        tokens = RaggedTokens(self.tokens.values.to(device), self.tokens.offsets.to(device))
        others = (self.top_ids, self.top_probs, self.states)
        return GeneralText(tokens, *(tensor.to(device) for tensor in others))


def from_block(block: SampledBlock, splitter: TokenSplitter) -> GeneralText:
    """Return the texts of a sampled block, without the padding."""
    positions = torch.arange(block.tokens.shape[1], device=block.tokens.device)
    inside = positions < block.lengths[:, None]
    return GeneralText(
        RaggedTokens(block.tokens[inside], offsets_of(block.lengths)),
        splitter.first[block.token_ids[inside].long()].int(),
        block.probs[inside],
        block.states[inside],
    )


def concatenate_texts(parts: Sequence[GeneralText]) -> GeneralText:
    """Return the texts of all `parts`, one part after the other."""
    others = ("top_ids", "top_probs", "states")
    return GeneralText(
        concatenate([part.tokens for part in parts]),
        *(torch.cat([getattr(part, name) for part in parts]) for name in others),
    )


def write_shard(file: Path, text: GeneralText) -> None:
    """Write texts into one file, whole or not at all."""
    tensors = {"tokens": text.tokens.values.int(), "offsets": text.tokens.offsets}
    ids = text.top_ids
    # Two bytes are enough for the first 32,768 tokens, and half of what the ids would take.
    narrow = ids.short() if not len(ids) or ids.max() < 2**15 else ids
    tensors |= {"top_ids": narrow, "top_probs": text.top_probs, "states": text.states}
    write_tensors(file, tensors)


def read_shard(file: Path) -> GeneralText:
    """Return the texts of a file.

    Raises:
        UserError: It is damaged.
    """
    try:
        tensors = load_file(file)
        tokens = RaggedTokens(tensors["tokens"], tensors["offsets"])
        others = [tensors[name] for name in ("top_ids", "top_probs", "states")]
    except Exception as error:  # safetensors raises its own kinds
        raise _damaged(file, error) from error
    return GeneralText(tokens, *others)


def count_tokens(file: Path) -> int:
    """Return how many tokens the texts of a file have, without reading them.

    Raises:
        UserError: It is damaged.
    """
    try:
        with safe_open(file, "pt") as archive:
            return archive.get_slice("tokens").get_shape()[0]
    except Exception as error:  # safetensors raises its own kinds
        raise _damaged(file, error) from error


def _damaged(file: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split())
    return UserError(
        f"{file} is damaged ({reason[:300]}); remove it, and the same command samples it again."
    )


def split_into_sentences(
    tokens: RaggedTokens, spellings: list[str], *, fraction: float, seed: int
) -> RaggedTokens:
    """Return the texts with a random `fraction` of them split into their sentences.

    A sentence ends after a token that ends with a full stop, a question or an exclamation mark,
    perhaps quoted, where a token with a space or a line break before it follows.

    Args:
        spellings: Of the decoder's tokens, as byte-level BPE spells them.
    """
    device = tokens.values.device
    closed = [s.rstrip('"”').endswith(ENDINGS) for s in spellings]
    spaced = [s.startswith(("Ġ", "Ċ")) for s in spellings]
    ends, begins = (torch.tensor(flags, device=device) for flags in (closed, spaced))
    generator = torch.Generator(device).manual_seed(seed)
    chosen = torch.rand(len(tokens), generator=generator, device=device) < fraction
    split = torch.repeat_interleave(chosen, tokens.lengths)
    ids = tokens.values.long()
    starts = torch.zeros(len(ids) + 1, dtype=torch.bool, device=device)
    starts[1:-1] = ends[ids[:-1]] & begins[ids[1:]] & split[:-1]
    starts[tokens.offsets] = True
    return RaggedTokens(tokens.values, starts.nonzero().squeeze(1))


@dataclass(frozen=True)
class PretrainingText:
    """N texts in a student's tokens, on one device.

    Attributes:
        tokens: The texts.
        origin: (total,) for each token, the row of the next three of the decoder's token that ends
            there; -1 within one.
        top_ids: As in `GeneralText`.
        top_probs: As in `GeneralText`.
        states: As in `GeneralText`.
    """

    tokens: RaggedTokens
    origin: Tensor
    top_ids: Tensor
    top_probs: Tensor
    states: Tensor


def in_student_tokens(
    text: GeneralText, vocabulary: Vocabulary, *, fraction_split: float, seed: int
) -> PretrainingText:
    """Return texts as a student reads them, a `fraction_split` of them split into sentences."""
    tokens = split_into_sentences(
        text.tokens, vocabulary.spellings, fraction=fraction_split, seed=seed
    )
    splitter = TokenSplitter(vocabulary.parts, text.tokens.values.device)
    student_tokens, origin = splitter.split(tokens)
    return PretrainingText(student_tokens, origin, text.top_ids, text.top_probs, text.states)
