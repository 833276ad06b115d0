"""The language model that sentences are sampled from: the base decoder, tuned to the task's text.

Tang, Lu and Lin 2019, *Natural Language Generation for Effective Knowledge Distillation*,
section 3.
"""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from potstill.data.batching import Batch, TokenDataset
from potstill.decoder import classifier
from potstill.decoder.base import max_positions
from potstill.decoder.hub import BaseModel
from potstill.decoder.language_model import LanguageModel
from potstill.decoder.lora import merge
from potstill.errors import UserError
from potstill.files import write_bytes, write_tensors
from potstill.ops.parameters import copy_tensors, trainable_parameters
from potstill.progress import Progress, no_progress
from potstill.settings import LoRASettings, ResolvedTrainSettings
from potstill.training.checkpoint import Checkpoint
from potstill.training.distributed import process
from potstill.training.lm_loop import fit_language_model
from potstill.training.precision import cast_frozen_to_bf16, resolve_precision
from potstill.transfer.sampling import Sampled, sample_parts
from potstill.transfer.teacher_lm import sampled_top_k, top_k_targets
from potstill.transfer.top_k import TopKTargets

SAMPLER = "sampler.safetensors"
UNFINISHED = ".sampler.unfinished"
SAMPLER_LR = 6e-4
MAX_TOKENS = 64  # of a sampled sentence

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sampler:
    """A language model and its tokenizer."""

    model: LanguageModel
    tokenizer: Any

    def sample(
        self, sentences: int, seed: int, temperature: float, *, soft_targets: bool = True
    ) -> Iterator[tuple[str, TopKTargets | None]]:
        """Begin as many `sentences`; yield the text of each that ends in time, and its targets.

        The targets are None where sampling doesn't give them, as it does for `soft_targets` in most
        cases; `top_k_targets` does then.
        """
        for part in sample_parts(
            self.model,
            sentences,
            seed,
            temperature=temperature,
            max_tokens=max_tokens(self.model),
            soft_targets=soft_targets,
        ):
            texts = self._decode(part)
            yield from zip(texts, sampled_top_k(self.tokenizer, texts, part), strict=True)

    def top_k_targets(self, sentences: list[str]) -> list[TopKTargets]:
        """Return the targets of given sentences."""
        return top_k_targets(self.model, self.tokenizer, sentences)

    def _decode(self, part: list[Sampled]) -> list[str]:
        tokens, tokenizer = [sampled.tokens for sampled in part], self.tokenizer
        # What transformers does with one text after the other, where it leaves the text as it is.
        if len(part) > 1 and not getattr(tokenizer, "clean_up_tokenization_spaces", True):
            texts = tokenizer.backend_tokenizer.decode_batch(tokens, skip_special_tokens=True)
        else:
            texts = [tokenizer.decode(each, skip_special_tokens=True) for each in tokens]
        return [" ".join(text.split()) for text in texts]


def load_sampler(
    folder: Path,
    base_model: BaseModel,
    sentences: list[str],
    *,
    epochs: int,
    seed: int,
    precision: str = "auto",
    earlier: Path | None = None,
    end_token: int | None = None,
    save_minutes: float = 5.0,
    progress: Progress = no_progress,
) -> Sampler:
    """Load the sampler of the set in `folder`; tune it to `sentences` first if there is none.

    Every process has to call this; the first one tunes.

    Args:
        folder: The set's folder, where the tuned weights are saved.
        base_model: The decoder to tune.
        sentences: The task's training text.
        epochs: Passes over it.
        seed: Of the adapters' first values and the order of the sentences.
        precision: "auto", "bf16" or "fp32".
        earlier: Folder of another set, whose sampler serves this one too if it has one.
        end_token: The token that ends a sentence. Default: the tokenizer's end of text.
        save_minutes: Minutes between two savings of the state of the tuning.
        progress: Shows the tuning.

    Raises:
        UserError: The saved weights are damaged or of another base.
    """
    tokenizer = base_model.tokenizer()
    half = resolve_precision(precision) == torch.bfloat16
    file = folder / SAMPLER

    def untuned() -> LanguageModel:
        torch.manual_seed(seed)
        whole = base_model.language_model()
        model = LanguageModel(whole, tokenizer, LoRASettings(), end_token)
        return model.to(process().device)

    if process().is_main_process and earlier and (earlier / SAMPLER).is_file():
        write_bytes(file, (earlier / SAMPLER).read_bytes())
    if process().is_main_process and not file.is_file():
        model = untuned()
        if half:
            cast_frozen_to_bf16(model.whole)
        model.fuse()
        tokens, _ = classifier.encode(tokenizer, sentences, max_tokens(model))
        settings = ResolvedTrainSettings(epochs=epochs, lr=SAMPLER_LR)
        determines = {"seed": seed, "epochs": epochs, "decoder": base_model.sha256(), "bf16": half}
        determines["text"] = hashlib.sha256("\n".join(sentences).encode()).hexdigest()
        checkpoint = Checkpoint(
            folder / UNFINISHED, determines, "sampler", minutes=save_minutes, together=False
        )
        with checkpoint.interruption:
            loss = tune_language_model(
                model,
                tokens,
                settings,
                epochs=epochs,
                seed=seed,
                checkpoint=checkpoint,
                progress=progress,
            )
        logger.info("language model: tuned on %d sentences, %.3f nats per token", len(tokens), loss)
        write_tensors(file, trainable_parameters(model))
        checkpoint.remove()
    process().wait_for_everyone()
    model = untuned()
    try:
        copy_tensors(load_file(file), trainable_parameters(model))
    except Exception as error:  # safetensors raises its own, torch RuntimeError
        raise UserError(
            f"{file} is damaged or of another base ({str(error).splitlines()[0]}); remove it, and "
            "the language model is tuned again."
        ) from error
    merge(model.base)
    if half:
        cast_frozen_to_bf16(model.whole)
    model.fuse()
    return Sampler(model.eval(), tokenizer)


def tune_language_model(
    model: LanguageModel,
    tokens: list[list[int]],
    settings: ResolvedTrainSettings,
    *,
    epochs: int,
    seed: int,
    checkpoint: Checkpoint | None = None,
    progress: Progress = no_progress,
) -> float:
    """Tune `model` to sentences, given as tokens; return the last epoch's mean loss.

    The tokens that start and end a sentence are added. The loss is in nats per token.
    """
    dataset = TokenDataset([[model.start, *t, model.end] for t in tokens])
    return fit_language_model(
        model,
        dataset,
        next_token_loss,
        settings,
        epochs=epochs,
        seed=seed,
        checkpoint=checkpoint,
        progress=progress,
    )


def next_token_loss(model: LanguageModel, batch: Batch) -> Tensor:
    """Return the mean cross-entropy of every token but the first of each sentence."""
    positions = torch.arange(1, batch.input_ids.shape[1], device=batch.input_ids.device)
    inside = positions < batch.lengths[:, None]
    logits = model.head(model(batch.input_ids[:, :-1])[inside])
    return F.cross_entropy(logits.float(), batch.input_ids[:, 1:][inside])


def max_tokens(model: LanguageModel) -> int:
    """Return how many tokens a sentence may have; the start token takes a position too."""
    return min(MAX_TOKENS, max_positions(model.whole, default=MAX_TOKENS + 1) - 1)
