"""A decoder tuned with LoRA: an adapter and its base model, run by torch."""

import logging
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from potstill import __version__
from potstill.data.batching import Batch
from potstill.decoder import classifier
from potstill.decoder.adapter import load_adapter, teacher_hash
from potstill.decoder.base import max_positions
from potstill.decoder.hub import BaseModel, find_base_model
from potstill.decoder.lora import merge
from potstill.decoder.merged import transformers_logits, write_merged
from potstill.errors import UserError, check_choice
from potstill.files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    RESULTS,
    atomic_folder,
    check_replaceable,
    check_writable,
    read_json,
    read_results,
    write_bytes,
    write_json,
)
from potstill.inference.classifier import Classifier, check_finite, check_texts
from potstill.manifest import check_manifest
from potstill.model_card import write_card
from potstill.model_config import read_model_config
from potstill.settings import DataSettings, Precision
from potstill.training.distributed import (
    BATCH_TOKENS,
    GPU_BATCH,
    predict,
    predict_logits,
    process,
)
from potstill.training.precision import cast_frozen_to_bf16, resolve_precision

# As far as merging may take a logit: fp32 rounds the sum of a weight and its update.
MAX_MERGING_ERROR = 1e-3
PROBES = ["The books on the table are old.", "Is.", "Whom did they say that never not has slept?"]

logger = logging.getLogger(__name__)


class DecoderClassifier(Classifier):
    """The LoRA adapter in `folder`, of potstill or of PEFT, on its base model.

    Args:
        folder: Folder of the adapter.
        gpt_variant: The base model. Default: the one that the adapter names.
        precision: Arithmetic of the decoder: "bf16", "fp32", or "auto": bf16 where the hardware
            speeds it up.

    Attributes:
        folder: Folder of the adapter.
        rank: Rank of the adapter.
        precision: Arithmetic of the decoder, "bf16" or "fp32".
        sha256: Hash of all that determines the logits: base model, adapter, and how texts are
            tokenised.

    Raises:
        UserError: The adapter is missing or damaged, or it was tuned on another base model.
    """

    def __init__(self, folder: Path, *, gpt_variant: str | None = None, precision: str = "auto"):
        check_choice("precision", precision, Precision)
        check_manifest(folder, ("config.json", ADAPTER_CONFIG, ADAPTER_WEIGHTS))
        has_config = (folder / "config.json").is_file()
        self.config = read_model_config(folder / "config.json") if has_config else {}
        self.results = read_results(folder)
        self.folder = folder
        self._adapter_config = read_json(folder / ADAPTER_CONFIG)
        try:
            self.rank = int(self._adapter_config["r"])
            recorded = self.config.get("decoder") or {}
            name = (
                gpt_variant
                or recorded.get("variant")
                or self._adapter_config["base_model_name_or_path"]
            )
            recorded_title, recorded_sha256 = recorded.get("title"), recorded.get("sha256")
            self._start_token = self.config.get("start_token")
            calibration = self.config.get("calibration") or {}
            self.temperature = float(calibration.get("temperature") or 1.0)
            if not isinstance(name, str):
                raise TypeError("the base has no name")
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise UserError(
                f"{folder}: config.json or {ADAPTER_CONFIG} is damaged ({error}); tune it again."
            ) from error
        base_model = find_base_model(name) if gpt_variant else _recorded_base_model(folder, name)
        base_sha256 = base_model.sha256()
        if recorded_sha256 and recorded_sha256 != base_sha256:
            raise UserError(
                f"{folder} was tuned on {recorded_title} with weights {recorded_sha256[:12]}, but "
                f"{base_model.name} has {base_sha256[:12]}; name the right base with `gpt_variant`."
            )
        self.title = f"{base_model.title} + LoRA"
        self._base_model = base_model
        base = base_model.base()
        default = DataSettings().max_length
        # PEFT records no maximum length.
        self.max_length = self.config.get("max_length") or min(
            default, max_positions(base, default=default)
        )
        most = max_positions(base, default=self.max_length)
        if self.max_length > most or (self._start_token or 0) >= base.config.vocab_size:
            raise UserError(
                f"{folder}/config.json is damaged: its max_length {self.max_length} or start_token "
                f"{self._start_token} is more than {base_model.title} knows."
            )
        self.model = load_adapter(base, folder)
        self._adapter_weights = (folder / ADAPTER_WEIGHTS).read_bytes()  # merging changes the model
        self.n_parameters, _ = classifier.parameter_counts(self.model)
        self.precision = "bf16" if resolve_precision(precision) == torch.bfloat16 else "fp32"
        if self.precision == "bf16":
            # Not merged: bf16 would round small updates away.
            cast_frozen_to_bf16(self.model.base)
        else:
            merge(self.model.base)
        self.model.to(process().device)
        self.tokenizer = base_model.tokenizer()
        n_classes = self.model.score.out_features
        labels = self.config.get("labels") or range(n_classes)
        if len(labels) != n_classes:
            raise UserError(
                f"{folder} has {n_classes} classes, but {len(labels)} labels in config.json."
            )
        self.classes_ = np.array([str(label) for label in labels])
        self.sha256 = teacher_hash(
            base_sha256, folder / ADAPTER_WEIGHTS, self.max_length, self._start_token
        )

    def logits(self, texts: str | Iterable[str], *, together: bool = True) -> np.ndarray:
        """Return the (N, classes) logits of N texts, fp32; one string counts as one text.

        Args:
            texts: One string, or a list, an array or a column of a table with N strings.
            together: Of several processes with the same texts, share the work; False where each
                has texts of its own.

        Raises:
            UserError: A text is empty or not a string, or the answers are not finite.
        """
        texts = check_texts(texts)
        if not texts:
            return np.empty((0, len(self.classes_)), np.float32)
        tokens = self._encode(texts)
        logits = predict_logits(self.model, tokens, together=together).numpy()
        check_finite(logits, self.folder)
        return logits

    def word_logits(self, texts: str | Iterable[str], *, together: bool = True) -> list[np.ndarray]:
        """See `Classifier`; `together` is as in `logits`."""
        texts = check_texts(texts)
        if not texts:
            return []
        tokens, ends = classifier.encode_words(
            self.tokenizer, texts, self.max_length, self._start_token
        )
        # The last token is the whole text's, whether a word ends there or not.
        positions = ends.append(tokens.lengths - 1)
        alone = not together or process().num_processes == 1
        if process().device.type != "cpu" and alone:
            self.model.eval()
            flat = classifier.logits_at(
                self.model, tokens, positions, batch_tokens=GPU_BATCH * BATCH_TOKENS
            )
            arrays = np.split(flat, positions.offsets[1:-1])
        else:

            def after_each_word(batch: Batch) -> list[Tensor]:
                logits = self.model.logits_after_each_token(batch.input_ids).float().cpu()
                return [logits[row, positions[i]] for row, i in enumerate(batch.indices.tolist())]

            logits = predict(self.model, tokens, after_each_word, together=together)
            arrays = [text_logits.numpy() for text_logits in logits]
            flat = np.concatenate(arrays)
        check_finite(flat, self.folder)
        return arrays

    def truncated(self, texts: str | Iterable[str]) -> np.ndarray:
        texts = check_texts(texts)
        tokens, _ = classifier.encode(self.tokenizer, texts, sys.maxsize, self._start_token)
        return np.array([len(text_tokens) > self.max_length for text_tokens in tokens], bool)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the adapter to `folder`, whole or not at all; `load` and PEFT read it.

        The base model is named, not written. An earlier model in `folder` is replaced.

        Raises:
            UserError: `folder` holds anything but a model, or can't be written.
        """
        folder = Path(folder)
        check_replaceable(folder, "`folder`")
        check_writable(folder.parent, "`folder`")
        with atomic_folder(folder) as staging:
            write_bytes(staging / ADAPTER_WEIGHTS, self._adapter_weights)
            write_json(staging / ADAPTER_CONFIG, self._adapter_config)
            if self.config:
                write_json(staging / "config.json", self.config)
            if self.results:
                write_json(staging / RESULTS, self.results)
            write_card(staging, "adapter", self._card_config(), self.results)

    def export_merged(self, folder: str | Path) -> float:
        """Write the decoder as an ordinary classifier of transformers, whole or not at all.

        The adapter is merged into the weights in fp32, whatever the precision of this classifier.
        `transformers.pipeline("text-classification", folder)` reads the result; its tokenizer puts
        the start token in front of each text. An earlier model in `folder` is replaced.

        Returns:
            The largest difference of a logit, merged and read back by transformers, from the
            adapter's divided by its temperature; of some probe sentences.

        Raises:
            UserError: `folder` holds anything but a model, can't be written, or transformers has no
                classifier for this decoder.
            RuntimeError: The logits are not the same but for rounding; nothing is written then.
        """
        folder = Path(folder)
        check_replaceable(folder, "`folder`")
        if folder.resolve() == self.folder.resolve():
            raise UserError(f"`folder`: {folder} holds the adapter; name another folder.")
        check_writable(folder.parent, "`folder`")
        with tempfile.TemporaryDirectory() as scratch:  # the adapter's own folder may be gone
            adapter = Path(scratch)
            write_bytes(adapter / ADAPTER_WEIGHTS, self._adapter_weights)
            write_json(adapter / ADAPTER_CONFIG, self._adapter_config)
            model = load_adapter(self._base_model.base(), adapter)
        # Other programs know of no temperature: their probabilities are calibrated by the head.
        model.score.weight.data.div_(self.temperature)
        tokens = self._encode(PROBES)
        with torch.no_grad():
            lengths = [torch.tensor([len(t)]) for t in tokens]
            before = [
                model.score(model.plain_last_hidden(torch.tensor([t]), n))[0]
                for t, n in zip(tokens, lengths, strict=True)
            ]
        with atomic_folder(folder) as staging:
            versions = self.config.get("versions", {}) | {"potstill": __version__}
            write_merged(
                model,
                self._base_model.tokenizer(),
                staging,
                labels=[str(label) for label in self.classes_],
                max_length=self.max_length,
                start_token=self._start_token,
                about={"versions": versions},
            )
            write_card(staging, "merged", self._card_config(), self.results)
            after = transformers_logits(staging, PROBES)
            difference = float((after - torch.stack(before)).abs().max())
            if not difference < MAX_MERGING_ERROR * max(
                1.0, float(torch.stack(before).abs().max())
            ):
                raise RuntimeError(f"the merged decoder answers otherwise: by {difference}")
        logger.info(
            f"merged: {folder}; logits differ from the adapter's by {difference:.1g} at most"
        )
        return difference

    def _card_config(self) -> dict[str, Any]:
        """Return what a card says of the run; PEFT records less than potstill."""
        about = {"decoder": self._base_model.describe(), "labels": self.classes_.tolist()}
        about |= {"max_length": self.max_length, "parameters": {"total": self.n_parameters}}
        return about | self.config

    def _encode(self, texts: list[str]) -> list[list[int]]:
        tokens, _ = classifier.encode(self.tokenizer, texts, self.max_length, self._start_token)
        return tokens


def _recorded_base_model(folder: Path, name: str) -> BaseModel:
    try:
        return find_base_model(name)
    except UserError as error:
        raise UserError(
            f"the base of {folder} is not available; name it with `gpt_variant`: {error}"
        ) from error
