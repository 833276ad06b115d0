"""Sampling of general text: beginnings, the most probable tokens, cut texts, states."""

import pytest
import torch

from potstill.decoder.hub import BaseModel
from potstill.decoder.language_model import LanguageModel
from potstill.transfer.free_text import FreeText, StatesToKeep
from potstill.transfer.gpu_sampling import sample_blocks
from potstill.transfer.slots import SampledBlock
from potstill.transfer.top_k import TOP_K
from tests.transfer.language_models import language_model, most_probable_first_token

MAX_TOKENS = 9
BEGINNINGS = [[5, 6], [7], [8, 9, 10, 11]]
PADDED = torch.tensor([[5, 6, -1, -1], [7, -1, -1, -1], [8, 9, 10, 11]])


@pytest.fixture
def model(tiny_decoder: BaseModel) -> LanguageModel:
    model = language_model(tiny_decoder)
    model.end = most_probable_first_token(model)
    return model


def draw(model: LanguageModel, texts: int, seed: int = 5, slots: int = 32) -> SampledBlock:
    keep = StatesToKeep(1, 4, lambda states: states[:, :4].float())
    free_text = FreeText(3, PADDED, keep)
    (block,) = sample_blocks(model, texts, seed, 1.0, MAX_TOKENS, free_text=free_text, slots=slots)
    return block


def texts_of(block: SampledBlock) -> list[list[int]]:
    return [t[:n].tolist() for t, n in zip(block.tokens, block.lengths, strict=True)]


@pytest.mark.parametrize("slots", [7, 300])
def test_every_text_is_kept_and_has_a_beginning(model: LanguageModel, slots: int) -> None:
    texts = texts_of(draw(model, 300, slots=slots))
    assert len(texts) == 300
    counts = [sum(text[: len(b)] == b for text in texts) for b in BEGINNINGS]
    assert sum(counts) == 300
    assert min(counts) > 60
    lengths = {len(text) for text in texts}
    assert max(lengths) == MAX_TOKENS > min(lengths)  # some are cut, some end


@torch.no_grad()
def test_tokens_are_drawn_among_the_most_probable_of_a_whole_pass(model: LanguageModel) -> None:
    for text in texts_of(draw(model, 40)):
        given = max(len(b) for b in BEGINNINGS if text[: len(b)] == b)
        logits = model.head(model(torch.tensor([[3, *text]])))[0]
        logits[:, model.end] = -torch.inf
        top = logits.topk(TOP_K).indices.tolist()
        assert all(text[i] in top[i] for i in range(given, len(text)))


@torch.no_grad()
def test_targets_and_states_are_those_of_a_whole_pass(model: LanguageModel) -> None:
    block = draw(model, 40)
    assert model.fused
    for row, text in enumerate(texts_of(block)):
        ids, n = torch.tensor([[3, *text]]), len(text)
        logits = model.head(model(ids))[0, 1:]
        logits[:, model.end] = -torch.inf
        expected = logits.softmax(1).topk(TOP_K).values
        torch.testing.assert_close(block.probs[row, :n].float(), expected, rtol=2e-3, atol=1e-5)
        whole = model.base(ids, output_hidden_states=True).hidden_states[1][0, 1:, :4]
        torch.testing.assert_close(block.states[row, :n].float(), whole, rtol=5e-3, atol=5e-3)


def test_the_seed_determines_them(model: LanguageModel) -> None:
    assert texts_of(draw(model, 90)) == texts_of(draw(model, 90))
    assert texts_of(draw(model, 90)) != texts_of(draw(model, 90, seed=6))
