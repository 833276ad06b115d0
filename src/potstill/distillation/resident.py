"""What a student learns from, as a few tensors on one device: a GPU makes batches of them without
asking the processor."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from potstill.data.batching import Batch, LabelledDataset
from potstill.data.ragged import RaggedTokens
from potstill.data.token_array import TokenArray, Tokens
from potstill.distillation.dataset import DistillationBatch, DistillationDataset
from potstill.distillation.lm_targets import LMDataset, LMTargets
from potstill.distillation.streamed import StreamedDataset
from potstill.distillation.word_targets import WordBatch
from potstill.student.model import DistilRNN
from potstill.training.distributed import process


@dataclass(frozen=True)
class ResidentDataset:
    """N tokenised sentences, labelled or UNLABELLED.

    Attributes:
        tokens: On the device.
        lengths: (N,) tokens of each sentence, on the processor.
        labels: (N,) on the processor.
        device_labels: (N,) on the device.
        teacher_logits: (N, classes) of the whole sentences; None without a teacher.
        word_rows: (total,) of each token that a word ends with, its row in `word_logits`; -1 of the
            others. None without word targets.
        word_logits: (words, classes) the teacher's after each word.
    """

    tokens: RaggedTokens
    lengths: np.ndarray
    labels: np.ndarray
    device_labels: Tensor
    teacher_logits: Tensor | None
    word_rows: Tensor | None
    word_logits: Tensor | None

    @classmethod
    def of(cls, dataset: LabelledDataset, device: torch.device) -> "ResidentDataset":
        """Put a dataset, with a teacher's logits or without, on `device`."""
        tokens, lengths = _flatten(dataset.tokens, device)
        labels = np.asarray(dataset.labels)
        resident = cls(
            tokens, lengths, labels, torch.from_numpy(labels).to(device), None, None, None
        )
        if not isinstance(dataset, DistillationDataset):
            return resident
        if dataset.teacher_logits is not None:
            resident = replace(resident, teacher_logits=dataset.teacher_logits.to(device))
        if words := dataset.word_targets:
            counts = words.offsets.diff()
            starts = torch.from_numpy(lengths).cumsum(0) - torch.from_numpy(lengths)
            at = words.positions + torch.repeat_interleave(starts, counts)
            rows = torch.full((int(lengths.sum()),), -1, dtype=torch.int32)
            rows[at] = torch.arange(len(at), dtype=torch.int32)
            resident = replace(
                resident, word_rows=rows.to(device), word_logits=words.logits.to(device)
            )
        return resident

    def __len__(self) -> int:
        return len(self.lengths)

    def batch_of_length(self, rows: Tensor, length: int) -> DistillationBatch:
        """Return the sentences at `rows`, (B,), each of `length` tokens, as a batch on the device.

        Every token stands among the batch's words; where none ends, it counts nothing.
        """
        positions = self.tokens.positions(rows, length)
        words = None
        if self.word_rows is not None and self.word_logits is not None:
            word_rows = self.word_rows[positions]
            is_word = word_rows >= 0
            counts = is_word.sum(1, keepdim=True).float()
            at = torch.arange(length, device=rows.device)
            words = WordBatch(
                torch.arange(len(rows), device=rows.device)[:, None].expand(-1, length).flatten(),
                at[None, :].expand(len(rows), -1).flatten(),
                self.word_logits[word_rows.clamp(min=0).flatten()].float(),
                torch.where(is_word, counts, torch.inf).flatten(),
            )
        return DistillationBatch(
            rows,
            self.tokens.values[positions].long(),
            torch.full_like(rows, length),
            self.device_labels[rows],
            None if self.teacher_logits is None else self.teacher_logits[rows],
            words,
        )


@dataclass(frozen=True)
class ResidentLMBatch(Batch):
    """following: (B, L - 1, K) token ids after each token but the last, and their weights; None for
    hard targets, the tokens that follow."""

    following: tuple[Tensor, Tensor] | None


@dataclass(frozen=True)
class ResidentText:
    """N tokenised sentences that a language model learns from.

    Attributes:
        tokens: On the device.
        lengths: (N,) tokens of each sentence, on the processor.
        rows: (total,) row of each token in the next two; -1 where it has only a hard target. None
            without soft targets.
        token_ids: (rows, K) the student's tokens that may follow.
        probs: (rows, K) their probabilities, fp16.
        in_top_k: (total,) True where the token that follows has its probability among these.
    """

    tokens: RaggedTokens
    lengths: np.ndarray
    rows: Tensor | None = None
    token_ids: Tensor | None = None
    probs: Tensor | None = None
    in_top_k: Tensor | None = None

    @classmethod
    def of(cls, text: LMDataset, device: torch.device) -> "ResidentText":
        """Put the text of a language model on `device`."""
        tokens, lengths = _flatten(text.tokens, device)
        resident = cls(tokens, lengths)
        if text.targets is None:
            return resident
        rows, in_top_k = _after_each_token(text.targets, lengths)
        ids = torch.from_numpy(text.targets.token_ids.astype(np.int64))
        return replace(
            resident,
            rows=torch.from_numpy(rows).to(device),
            token_ids=text.targets.student_ids[ids].int().to(device),
            probs=torch.from_numpy(text.targets.probs).to(device),
            in_top_k=torch.from_numpy(in_top_k).to(device),
        )

    def __len__(self) -> int:
        return len(self.lengths)

    def batch_of_length(self, rows: Tensor, length: int) -> ResidentLMBatch:
        """Return the sentences at `rows`, (B,), each of `length` tokens, as a batch."""
        positions = self.tokens.positions(rows, length)
        input_ids = self.tokens.values[positions].long()
        lengths = torch.full_like(rows, length)
        if self.rows is None or self.token_ids is None or self.probs is None:
            return ResidentLMBatch(rows, input_ids, lengths, None)
        assert self.in_top_k is not None
        after = positions[:, :-1]
        targets = self.rows[after]
        soft, safe = targets >= 0, targets.clamp(min=0)
        hard = ~(soft & self.in_top_k[after])
        token_ids = torch.cat([self.token_ids[safe].long(), input_ids[:, 1:, None]], 2)
        weights = torch.cat([self.probs[safe].float() * soft[..., None], hard[..., None]], 2)
        return ResidentLMBatch(rows, input_ids, lengths, (token_ids, weights))


def _flatten(tokens: Tokens, device: torch.device) -> tuple[RaggedTokens, np.ndarray]:
    array = TokenArray.of(tokens)
    values = torch.from_numpy(array.values.astype(np.int32))
    offsets = torch.from_numpy(np.asarray(array.offsets, np.int64))
    return RaggedTokens(values.to(device), offsets.to(device)), array.lengths


def _after_each_token(targets: LMTargets, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (total,) rows and whether the token that follows is in the top k, of every token; the
    last of each sentence has none."""
    has_next = np.ones(int(lengths.sum()), bool)
    has_next[np.cumsum(lengths)[lengths > 0] - 1] = False
    rows = np.full(len(has_next), -1, np.int32)
    in_top_k = np.zeros(len(has_next), bool)
    rows[has_next], in_top_k[has_next] = targets.rows, targets.in_top_k
    return rows, in_top_k


def on_device(
    model: DistilRNN, dataset: LabelledDataset | StreamedDataset
) -> LabelledDataset | StreamedDataset | ResidentDataset:
    """Return the dataset as `model` is trained on it: on the device, where that serves."""
    if not serves(model):
        return dataset
    whole = dataset.whole() if isinstance(dataset, StreamedDataset) else dataset
    return ResidentDataset.of(whole, process().device)


def serves(model: DistilRNN) -> bool:
    """Return whether `model` is trained on data that is on the device: on a GPU, by one process,
    where it is of the kind that `LayeredStudent` computes."""
    state, config = process(), model.config
    one_gpu = state.device.type == "cuda" and state.num_processes == 1
    return one_gpu and config.cell == "gru" and config.bidirectional
