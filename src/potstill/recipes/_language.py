"""Whether a base decoder can know the language of a task."""

import logging
from typing import Any

SAMPLE = 500  # sentences that are looked at
# Tokens per byte of UTF-8. English takes 0.23 of SmolLM2's, and text that a decoder was trained on
# takes as few in any script; German takes 0.40 of them, Russian 0.42, Japanese 0.60.
FOREIGN = 0.35

logger = logging.getLogger(__name__)


def log_foreign_text(tokenizer: Any, sentences: list[str]) -> None:
    """Log a warning if the tokenizer of a decoder has no words for the text of a task.

    Args:
        tokenizer: A tokenizer of transformers.
        sentences: The training sentences.
    """
    sample = sentences[:SAMPLE]
    tokens = sum(map(len, tokenizer(sample, add_special_tokens=False)["input_ids"]))
    per_byte = tokens / sum(len(sentence.encode()) for sentence in sample)
    if per_byte > FOREIGN:
        per_character = tokens / sum(map(len, sample))
        logger.warning(
            "warning: the base decoder takes %.1f tokens for a character of this text, so it can "
            "hardly know the language; a `gpt_variant` that does makes a better teacher",
            per_character,
        )
