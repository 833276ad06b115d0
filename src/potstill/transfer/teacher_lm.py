"""Soft targets from a decoder: its most probable next tokens in given sentences."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from tokenizers import pre_tokenizers
from torch import Tensor

from potstill.data.batching import Batch
from potstill.decoder import classifier
from potstill.decoder.base import max_positions
from potstill.decoder.language_model import LanguageModel
from potstill.training.distributed import predict
from potstill.transfer.sampling import GPU_ROWS, ROWS, Sampled, top_k_next
from potstill.transfer.top_k import TopKTargets


@torch.no_grad()
def top_k_targets(model: LanguageModel, tokenizer: Any, sentences: list[str]) -> list[TopKTargets]:
    """Return the targets of each sentence by a forward pass of `model`.

    Each process computes them for sentences of its own.
    """
    max_seq_len = max_positions(model.whole, default=1024)
    tokens, _ = classifier.encode(tokenizer, sentences, max_seq_len, model.start)
    encoded = tokenizer(sentences, add_special_tokens=False, return_offsets_mapping=True)

    def answer(batch: Batch) -> Iterable[tuple[Tensor, Tensor]]:
        positions = torch.arange(batch.input_ids.shape[1], device=batch.input_ids.device)
        # Not after the start token, which the student doesn't have, nor after the last one.
        inner = (positions > 0) & (positions < batch.lengths[:, None] - 1)
        rows = ROWS if inner.is_cpu else GPU_ROWS
        states = model(batch.input_ids)[inner].split(rows)
        flat = top_k_next((model.head(part) for part in states), model.end)
        token_ids, probs = (each.split(inner.sum(1).tolist()) for each in flat)
        return list(zip(token_ids, probs, strict=True))

    predicted = predict(model, tokens, answer, together=False)
    targets = []
    for (token_ids, probs), ids, spans in zip(
        predicted, tokens, encoded["offset_mapping"], strict=True
    ):
        offsets = np.array([end for _, end in spans[: len(token_ids)]], np.uint16)
        next_ids = np.array(ids[2:], np.int32)
        targets.append(TopKTargets(offsets, token_ids.numpy(), probs.numpy(), next_ids))
    return targets


def sampled_top_k(
    tokenizer: Any, sentences: list[str], sampled: list[Sampled]
) -> list[TopKTargets | None]:
    """Return the targets that sampling computed for each of `sampled`, whose texts are `sentences`.

    None if it computed none, or if `tokenizer` splits the text into other tokens than were drawn:
    `top_k_targets` has to score the sentence then.
    """
    if all(each.top_k is None for each in sampled):
        return [None] * len(sampled)
    targets: list[TopKTargets | None] = []
    encoded = classifier.encode_spans(tokenizer, sentences)
    for each, token_ids, spans in zip(sampled, *encoded, strict=True):
        if each.top_k is None or not each.tokens or token_ids != each.tokens:
            targets.append(None)
            continue
        offsets = np.array([end for _, end in spans[:-1]], np.uint16)
        next_token_ids, probs = (x.numpy() for x in each.top_k)
        next_ids = np.array(each.tokens[1:], np.int32)
        targets.append(TopKTargets(offsets, next_token_ids, probs, next_ids))
    return targets


def vocabulary(tokenizer: Any) -> list[str]:
    """Return a decoder's tokens, spelt as byte-level BPE spells them."""
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if type(getattr(backend, "decoder", None)).__name__ == "ByteLevel":
        return list(tokens)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    spelt = [byte_level.pre_tokenize_str(token.replace("▁", " ")) for token in tokens]
    return ["".join(part for part, _ in parts) for parts in spelt]
