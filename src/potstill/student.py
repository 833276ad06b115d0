"""DistilRNN, the student: Embedding, recurrent layers, Linear; and its own tokenizer."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from potstill import UserError
from potstill.checkpoint import STUDENT_TOKENIZER, STUDENT_WEIGHTS, read_json, write_tensors
from potstill.dropout import Dropout
from potstill.recurrence import gru
from potstill.settings import StudentSettings
from potstill.words import word_ends

CELLS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


@dataclass(frozen=True)
class StudentConfig:
    """Shape of a DistilRNN: all it takes to build one."""

    vocab_size: int
    classes: int
    cell: Literal["rnn", "gru", "lstm"] = StudentSettings.cell
    embedding_size: int = StudentSettings.embedding_size
    hidden_size: int = StudentSettings.hidden_size
    layers: int = StudentSettings.layers
    bidirectional: bool = StudentSettings.bidirectional
    dropout: float = StudentSettings.dropout


class DistilRNN(nn.Module):
    """Reads the tokens one by one and classifies by its last state (of each direction) and by the
    largest value that each unit has had on the way.

    The student of Tang et al. 2019, *Distilling Task-Specific Knowledge from BERT into Simple
    Neural Networks*, section 3.1, with the kind of recurrence left open; the maximum is that of
    Conneau et al. 2017, *Supervised Learning of Universal Sentence Representations from Natural
    Language Inference Data*, section 3.2.2.

    Training on a CPU, a GRU makes its products in `product_dtype`; all else is in fp32.
    """

    product_dtype = torch.float32

    def __init__(self, config: StudentConfig):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.embedding_size)
        self.dropout = Dropout(config.dropout)
        self.rnn = CELLS[config.cell](
            config.embedding_size,
            config.hidden_size,
            config.layers,
            batch_first=True,
            bidirectional=config.bidirectional,
            dropout=config.dropout if config.layers > 1 else 0.0,
        )
        self.directions = 2 if config.bidirectional else 1
        self.score = nn.Linear(2 * config.hidden_size * self.directions, config.classes)

    def forward(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """(B, L) tokens, padded on the right, and their (B,) lengths to (B, classes) logits."""
        return self.classify(self.states(input_ids, lengths), lengths)

    def classify(self, states: Tensor, lengths: Tensor) -> Tensor:
        """(B, classes) logits from the states of whole sentences, as `states` gives them."""
        B, H = len(lengths), self.config.hidden_size
        last = states[torch.arange(B, device=states.device), lengths - 1, :H]
        if self.config.bidirectional:  # backwards the first token is read last
            last = torch.cat([last, states[:, 0, H:]], dim=1)
        padding = torch.arange(states.shape[1], device=states.device) >= lengths[:, None]
        if bool(padding.any()):
            states = states.masked_fill(padding[..., None], -torch.inf)
        largest = states.amax(1)
        return self.score(self.dropout(torch.cat([last, largest], dim=1)))

    def states(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """(B, L, directions · hidden) of the last recurrent layer; what stands in the padding means
        nothing."""
        x: Any = self.dropout(self.embedding(input_ids))
        if self.config.cell == "gru" and x.is_cpu:
            dtype = self.product_dtype if self.training else x.dtype
            ways = self.directions
            for layer in range(self.config.layers):
                weights = self.rnn.all_weights[layer * ways : (layer + 1) * ways]
                x = gru(self.dropout(x) if layer else x, lengths, weights, dtype)
            return x
        if bool((lengths < input_ids.shape[1]).any()):
            # Else the backward direction would start in the padding.
            packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
            states = self.rnn(packed)[0]
            return pad_packed_sequence(states, True, total_length=input_ids.shape[1])[0]
        return self.rnn(x)[0]


def train_tokenizer(sentences: Iterable[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE over `sentences`, of at most `vocab_size` tokens; no token is unknown to it.

    Sennrich, Haddow and Birch 2016, *Neural Machine Translation of Rare Words with Subword Units*,
    section 3.2; on bytes as in Radford et al. 2019 (GPT-2), section 2.2.
    """
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocab_size <= len(alphabet):
        raise UserError(
            f"--vocab_size {vocab_size} is too small: bytes alone take {len(alphabet)}."
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


def encode(tokenizer: Tokenizer, sentences: list[str], max_length: int) -> list[list[int]]:
    """Tokens of each sentence, cut at `max_length`."""
    return [e.ids[:max_length] for e in tokenizer.encode_batch(sentences)]


def word_places(tokenizer: Tokenizer, sentences: list[str], max_length: int) -> list[list[int]]:
    """Of each sentence the places of its words' last tokens among those that `encode` gives."""
    encoded = zip(sentences, tokenizer.encode_batch(sentences), strict=True)
    return [word_ends(s, [end for _, end in e.offsets[:max_length]]) for s, e in encoded]


def save_student(model: DistilRNN, tokenizer: Tokenizer, folder: Path) -> None:
    """Writes weights and tokenizer into `folder`."""
    write_tensors(folder / STUDENT_WEIGHTS, model.state_dict())
    tokenizer.save(str(folder / STUDENT_TOKENIZER))


def load_student(folder: Path) -> tuple[DistilRNN, Tokenizer]:
    """A saved student in evaluation mode, and its tokenizer.

    Raises:
        UserError: no student there, or one that is damaged.
    """
    shape = read_json(folder / "config.json").get("student")
    if shape is None:
        raise UserError(f"{folder} holds no student (config.json does not describe one).")
    try:
        model = DistilRNN(StudentConfig(**shape))
        model.load_state_dict(load_file(folder / STUDENT_WEIGHTS))
        tokenizer = Tokenizer.from_file(str(folder / STUDENT_TOKENIZER))
    except Exception as error:  # safetensors and tokenizers raise their own kinds
        reason = " ".join(str(error).split())
        raise UserError(
            f"the student in {folder} can't be read: {reason[:300]}; train it again."
        ) from error
    return model.eval(), tokenizer
