"""Whether a base decoder, or the tokenizer of DistilRNN-base, can know the language of a task."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from tokenizers import Tokenizer

from potstill.files import STUDENT_TOKENIZER
from potstill.pretrained import BASE
from potstill.student.tokenizer import encode_batch, read_tokenizer

SAMPLE = 500  # sentences that are looked at
# Tokens per byte of UTF-8. English takes 0.23 of SmolLM2's, and text that a decoder was trained on
# takes as few in any script; German takes 0.40 of them, Russian 0.42, Japanese 0.60.
FOREIGN = 0.35
# English takes 0.26 to 0.36 of DistilRNN-base's; of a language that it does not know a letter takes
# one or two: Russian 0.80, Japanese 0.86.
FOREIGN_TO_BASE = 0.5

logger = logging.getLogger(__name__)


def base_tokenizer(sentences: Sequence[str]) -> Tokenizer | None:
    """Return the tokenizer of DistilRNN-base, where a student of these training sentences starts
    from it by default, else None."""
    tokenizer = read_tokenizer(BASE / STUDENT_TOKENIZER)
    return None if is_foreign_to_base(tokenizer, sentences) else tokenizer


def is_foreign_to_base(tokenizer: Tokenizer, sentences: Sequence[str]) -> bool:
    """Return whether the tokenizer of DistilRNN-base has no words for the text of a task."""

    def count(sample: Sequence[str]) -> int:
        return sum(len(encoding.ids) for encoding in encode_batch(tokenizer, list(sample)))

    return _tokens_per_byte(count, sentences[:SAMPLE]) > FOREIGN_TO_BASE


def log_foreign_text(tokenizer: Any, sentences: list[str]) -> None:
    """Log a warning if the tokenizer of a decoder has no words for the text of a task.

    Args:
        tokenizer: A tokenizer of transformers.
        sentences: The training sentences.
    """
    sample = sentences[:SAMPLE]

    def count(sample: Sequence[str]) -> int:
        return sum(map(len, tokenizer(sample, add_special_tokens=False)["input_ids"]))

    if _tokens_per_byte(count, sample) > FOREIGN:
        per_character = count(sample) / sum(map(len, sample))
        logger.warning(
            "warning: the base decoder takes %.1f tokens for a character of this text, so it can "
            "hardly know the language; a `gpt_variant` that does makes a better teacher",
            per_character,
        )


def _tokens_per_byte(count: Callable[[Sequence[str]], int], sample: Sequence[str]) -> float:
    return count(sample) / max(1, sum(len(sentence.encode()) for sentence in sample))
