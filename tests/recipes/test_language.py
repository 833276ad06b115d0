"""Text that the base decoder's tokenizer has no words for is told apart."""

import logging

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from potstill.data.corpus import load_corpus
from potstill.recipes._language import log_foreign_text

ENGLISH = load_corpus("minicola").splits["train"].sentences[:300]
RUSSIAN = ["Книга лежит на столе, а мальчик спит.", "Это очень хорошая погода."] * 50
JAPANESE = ["本は机の上にあります。", "子供は寝ています。"] * 50


def tokenizer_of(sentences: list[str]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=2000, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(sentences, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.mark.parametrize(
    ("trained_on", "text", "warned"),
    [
        (ENGLISH, ENGLISH, False),
        (ENGLISH, RUSSIAN, True),
        (ENGLISH, JAPANESE, True),
        (RUSSIAN, RUSSIAN, False),
        (JAPANESE, JAPANESE, False),
        (JAPANESE, ENGLISH, True),
    ],
)
def test_the_warning(
    trained_on: list[str], text: list[str], warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        log_foreign_text(tokenizer_of(trained_on), text)
    assert ("it can hardly know the language" in caplog.text) == warned
