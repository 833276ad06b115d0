"""The student's own tokenizer."""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Encoding, Tokenizer, decoders, models, pre_tokenizers, trainers

from potstill.data.text import word_ends
from potstill.errors import UserError
from potstill.parsing import parse_json

FEW = 256  # sentences for which the tokenizer's own threads cost more than they save


def train_tokenizer(sentences: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train a byte-level BPE tokenizer on `sentences`; it has no unknown token.

    Sennrich, Haddow and Birch 2016, *Neural Machine Translation of Rare Words with Subword Units*,
    section 3.2; on bytes as in Radford et al. 2019 (GPT-2), section 2.2.

    Args:
        vocab_size: Maximum number of tokens.

    Raises:
        UserError: `vocab_size` does not even hold the bytes.
    """
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocab_size <= len(alphabet):
        raise UserError(
            f"`vocab_size` {vocab_size} is too small: bytes alone take {len(alphabet)}."
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=["<pad>"],
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences, trainer)
    return tokenizer


def read_tokenizer(file: Path) -> Tokenizer:
    """Return a saved tokenizer.

    Raises:
        ValueError: It is damaged, or no byte-level BPE as `train_tokenizer` makes it.
        OSError: It can't be read.
    """
    text = file.read_text(encoding="utf-8")
    described = parse_json(text)
    model = described.get("model") if isinstance(described, dict) else None
    if not isinstance(model, dict) or model.get("continuing_subword_prefix"):
        raise ValueError(f"{file.name} is no byte-level BPE")
    try:
        return Tokenizer.from_str(text)
    except BaseException as error:  # a panic of its Rust code is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise ValueError(f"{file.name}: {error}") from None


def encode(tokenizer: Tokenizer, sentences: list[str], max_length: int) -> list[list[int]]:
    """Return the tokens of each sentence, truncated to `max_length`."""
    tokenizer.encode_special_tokens = True  # see `encode_batch`
    if len(sentences) <= FEW:
        return [tokenizer.encode(sentence).ids[:max_length] for sentence in sentences]
    return [e.ids[:max_length] for e in tokenizer.encode_batch_fast(sentences)]


def encode_batch(tokenizer: Tokenizer, sentences: list[str]) -> list[Encoding]:
    """Return the encoding of each sentence; text that spells `<pad>` is five characters.

    Token 0 comes from padding alone.
    """
    # Neither a tokenizer's file nor a pickled one keeps this.
    tokenizer.encode_special_tokens = True
    return tokenizer.encode_batch(sentences)


def truncated(tokenizer: Tokenizer, sentences: list[str], max_length: int) -> list[bool]:
    """Return for each sentence whether `encode` cuts it."""
    cut = [False] * len(sentences)
    # No token is shorter than a byte, but for the space that is put before the first word.
    long = [i for i, s in enumerate(sentences) if len(s.encode()) + 1 > max_length]
    for i, encoding in zip(
        long, encode_batch(tokenizer, [sentences[i] for i in long]), strict=True
    ):
        cut[i] = len(encoding.ids) > max_length
    return cut


def word_end_positions(
    tokenizer: Tokenizer, sentences: list[str], max_length: int
) -> list[list[int]]:
    """Return for each sentence the positions of its words' last tokens among those of `encode`."""
    encodings = zip(sentences, encode_batch(tokenizer, sentences), strict=True)
    return [word_ends(s, [end for _, end in e.offsets[:max_length]]) for s, e in encodings]
