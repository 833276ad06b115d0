"""What the decoder holds likely after each token of given sentences."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from potstill.data.batching import Batch
from potstill.decoder import classifier
from potstill.decoder.base import max_positions
from potstill.decoder.language_model import LanguageModel
from potstill.training.distributed import predict
from potstill.transfer.next_tokens import NextTokens
from potstill.transfer.sampling import ROWS, Sampled, likely_next


@torch.no_grad()
def likeliest(model: LanguageModel, tokenizer: Any, sentences: list[str]) -> list[NextTokens]:
    """By `model`, each process for sentences of its own."""
    positions = max_positions(model.whole, default=1024)
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
