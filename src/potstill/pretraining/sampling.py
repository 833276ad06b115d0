"""Sampling general text into files, which an interrupted command takes up again."""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from potstill.decoder.base import max_positions
from potstill.decoder.hub import BaseModel
from potstill.decoder.language_model import LanguageModel
from potstill.decoder.lora import merge
from potstill.errors import UserError
from potstill.files import read_json, write_json, write_tensors
from potstill.pretraining.beginnings import BEGINNINGS
from potstill.pretraining.text import (
    GeneralText,
    concatenate_texts,
    count_tokens,
    from_block,
    write_shard,
)
from potstill.pretraining.vocabulary import TokenSplitter, Vocabulary
from potstill.progress import Progress, no_progress
from potstill.settings import LoRASettings
from potstill.training.distributed import process
from potstill.training.precision import cast_frozen_to_bf16, resolve_precision
from potstill.transfer.free_text import FreeText, StatesToKeep
from potstill.transfer.gpu_sampling import SLOTS, sample_blocks
from potstill.transfer.slots import SampledBlock
from potstill.transfer.top_k import TOP_K

DESCRIPTION = "text.json"
BASIS = "basis.safetensors"
MAX_TOKENS = 62  # of a text
SHARD_TEXTS = 8192
BASIS_TEXTS = 4096  # whose states the basis is computed from
DIRECTIONS = 128  # of the decoder's states that are kept
CPU_SLOTS = 256  # texts sampled at the same time
CPU_BLOCK = 2048  # texts that are handed over together
LIMIT = 6.0  # of a projected state; few are beyond, and far beyond

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StateBasis:
    """The directions in which a decoder's states are kept.

    Attributes:
        mean: (width,) of the states.
        projection: (width, directions).
    """

    mean: Tensor
    projection: Tensor

    def project(self, states: Tensor) -> Tensor:
        """Return (B, directions) of (B, width) states; the mean of their squares is about 1."""
        return ((states.float() - self.mean) @ self.projection).clamp_(-LIMIT, LIMIT)


def state_basis(states: Tensor, directions: int) -> StateBasis:
    """Return the principal directions of (N, width) states.

    Each direction is divided by the square root of its deviation: halfway between the states as
    they are, of which the first few directions would take all of the loss, and whitened ones, of
    which the last would take as much as the first.
    """
    states = states.float()
    # A few tokens have states hundreds of times as large as the others, and would take all.
    norms = states.norm(dim=1)
    states = states[norms < 4 * norms.median()]
    mean = states.mean(0)
    centred = states - mean
    covariance = (centred.T @ centred / len(centred)).double()
    variances, vectors = torch.linalg.eigh(covariance)  # ascending
    variances, vectors = variances.flip(0)[:directions], vectors.flip(1)[:, :directions]
    projection = (vectors * variances.clamp(min=1e-9) ** -0.25).float()
    return StateBasis(mean, projection / (centred @ projection).square().mean().sqrt())


@dataclass
class Writer:
    """A decoder that writes general text into the files of a folder.

    Args:
        folder: Where the files are.
        base_model: The decoder.
        vocabulary: Its tokens and the student's.
        seed: Determines the text.
        precision: Arithmetic of the decoder: "auto", "bf16" or "fp32".
        shard_texts: Texts of a file.
        basis_texts: Texts that the basis of the states is computed from.
    """

    folder: Path
    base_model: BaseModel
    vocabulary: Vocabulary
    seed: int
    precision: str = "auto"
    shard_texts: int = SHARD_TEXTS
    basis_texts: int = BASIS_TEXTS

    def describe(self) -> dict[str, Any]:
        """Return what determines the text."""
        return {
            "SR": self.seed,
            "decoder": self.base_model.sha256(),
            "vocab_size": self.vocabulary.tokenizer.get_vocab_size(),
            "beginnings": BEGINNINGS,
            "max_tokens": MAX_TOKENS,
            "top_k": TOP_K,
            "directions": DIRECTIONS,
            "shard_texts": self.shard_texts,
            "basis_texts": self.basis_texts,
        }

    def write(self, tokens: int, progress: Progress = no_progress) -> list[Path]:
        """Sample texts of at least so many tokens, as far as they are not there yet.

        Returns:
            The files, each of `shard_texts` texts.

        Raises:
            UserError: The folder holds something else, or the decoder can't be sampled.
        """
        self._check_folder()
        files: list[Path] = []
        done, sampled, started = 0, 0, time.perf_counter()
        with progress(tokens) as show:
            while done < tokens:
                file = self.folder / f"text-{len(files):05d}.safetensors"
                if not file.is_file():
                    write_shard(file, self._shard(len(files)))
                    sampled += count_tokens(file)
                files.append(file)
                done += count_tokens(file)
                show(min(done, tokens), "general text")
        seconds = time.perf_counter() - started
        logger.info(
            "general text: %d tokens in %s, %d of them sampled in %.0f s",
            done,
            self.folder,
            sampled,
            seconds,
        )
        return files

    def _check_folder(self) -> None:
        file, description = self.folder / DESCRIPTION, self.describe()
        if file.is_file():
            stored = read_json(file)
            for key, value in description.items():
                if not isinstance(stored, dict) or stored.get(key) != value:
                    raise UserError(
                        f"`text_path` {self.folder} holds text sampled with another {key}; name "
                        "another folder."
                    )
        elif self.folder.is_dir() and any(self.folder.iterdir()):
            raise UserError(
                f"`text_path` {self.folder} is not empty and holds no general text; name another "
                "folder."
            )
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(file, description)

    @cached_property
    def _tokenizer(self) -> Any:
        return self.base_model.tokenizer()

    @cached_property
    def _splitter(self) -> TokenSplitter:
        return TokenSplitter(self.vocabulary.parts, process().device)

    @cached_property
    def _beginnings(self) -> Tensor:
        """(P, T) token ids of the beginnings, -1 behind the end of a shorter one."""
        ids = [self._tokenizer(b, add_special_tokens=False)["input_ids"] for b in BEGINNINGS]
        longest = max(map(len, ids))
        return torch.tensor([row + [-1] * (longest - len(row)) for row in ids])

    @cached_property
    def _model(self) -> LanguageModel:
        whole = self.base_model.language_model()
        model = LanguageModel(whole, self._tokenizer, LoRASettings())
        model.to(process().device)
        merge(model.base)
        if resolve_precision(self.precision) == torch.bfloat16:
            cast_frozen_to_bf16(model.whole)
        model.fuse()
        if model.fused is None:
            raise UserError(
                f"{self.base_model.title} is neither a GPT-2 nor a Llama, whose states can be had "
                "while they are sampled; name another `gpt_variant`."
            )
        return model.eval()

    @property
    def state_block(self) -> int:
        """The block whose states are learnt, two thirds of the way up."""
        return round(self._model.whole.config.num_hidden_layers * 2 / 3)

    def _sample(self, texts: int, number: int, states: StatesToKeep) -> Iterator[SampledBlock]:
        model = self._model
        start = self._tokenizer.get_vocab().get("<|endoftext|>", model.start)
        seed = int(np.random.default_rng([self.seed, number]).integers(2**31))
        slots, block = SLOTS, texts
        if process().device.type == "cpu":
            slots, block = CPU_SLOTS, CPU_BLOCK
        limit = min(MAX_TOKENS, max_positions(model.whole, default=MAX_TOKENS + 1) - 1)
        free_text = FreeText(start, self._beginnings, states)
        yield from sample_blocks(
            model, texts, seed, 1.0, limit, free_text=free_text, slots=slots, block=block
        )

    def _shard(self, number: int) -> GeneralText:
        basis = self._basis
        keep = StatesToKeep(self.state_block, basis.projection.shape[1], basis.project)
        blocks = self._sample(self.shard_texts, 1 + number, keep)
        return concatenate_texts([from_block(block, self._splitter) for block in blocks])

    @cached_property
    def _basis(self) -> StateBasis:
        """The basis, computed from texts of its own once and for all files."""
        file, device = self.folder / BASIS, process().device
        if not file.is_file():
            width = self._model.whole.config.hidden_size
            keep = StatesToKeep(self.state_block, width, lambda states: states)
            blocks = self._sample(self.basis_texts, 0, keep)
            states = torch.cat([from_block(block, self._splitter).states for block in blocks])
            basis = state_basis(states, min(DIRECTIONS, width))
            write_tensors(file, {"mean": basis.mean, "projection": basis.projection})
        tensors = load_file(file, device=str(device))
        return StateBasis(tensors["mean"], tensors["projection"])
