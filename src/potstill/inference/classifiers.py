"""A saved model, loaded: an adapter with its base, or a student."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from potstill.data.batching import Batch
from potstill.decoder import classifier
from potstill.decoder.adapter import load_adapter, teacher_hash
from potstill.decoder.base import max_positions
from potstill.decoder.classifier import parameter_counts
from potstill.decoder.hub import find_base_model
from potstill.decoder.lora import merge
from potstill.errors import UserError
from potstill.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, STUDENT_ONNX, STUDENT_WEIGHTS, read_json
from potstill.inference.predictor import load_predictor
from potstill.settings import DataSettings
from potstill.student.io import load_student
from potstill.student.tokenizer import encode
from potstill.training.distributed import predict, predict_logits, process
from potstill.training.precision import cast_frozen_to_bf16, resolve_precision


def _no_words(sentences: list[str], together: bool = True) -> list[Tensor]:
    raise TypeError("a student judges whole sentences")


@dataclass(frozen=True)
class Model:
    """A saved model at hand.

    title: for tables; labels: names of its classes; parameters: their number; config: the run's
    config.json; logits: maps N sentences to (N, classes), by all processes together or, told
    `together=False`, by each for its own; word_logits: of a decoder, the like for what it makes of
    a sentence after each of its W words and at its end, (W + 1, classes) each; sha256: of a
    teacher, what settles its logits, else "".
    """

    title: str
    labels: tuple[str, ...]
    parameters: int
    config: dict[str, Any]
    logits: Callable[..., Tensor]
    word_logits: Callable[..., list[Tensor]] = _no_words
    sha256: str = ""


def load_model(folder: Path, precision: str = "auto", gpt_variant: str | None = None) -> Model:
    """Loads a LoRA adapter (ours or PEFT's) with its base, or a student.

    Raises:
        UserError: nothing there, damaged, or a base other than the one it was tuned on.
    """
    if not folder.is_dir():
        raise UserError(
            f"--model_path {folder}: there is no such folder; train a model, or name another."
            f"{_runs_nearby(folder)}"
        )
    if (folder / ADAPTER_CONFIG).is_file():
        return _load_adapter(folder, precision, gpt_variant)
    if (folder / STUDENT_ONNX).is_file() and not (folder / STUDENT_WEIGHTS).is_file():
        return _load_exported(folder)
    if not (folder / STUDENT_WEIGHTS).is_file():
        raise UserError(
            f"--model_path {folder} holds neither an adapter ({ADAPTER_CONFIG}) nor a "
            f"student ({STUDENT_WEIGHTS}).{_runs_nearby(folder)}"
        )
    model, tokenizer, config = load_student(folder)
    model.to(process().device)

    def logits(sentences: list[str], together: bool = True) -> Tensor:
        tokens = encode(tokenizer, sentences, config["max_length"])
        return predict_logits(model, tokens, together=together)

    parameters, _ = parameter_counts(model)
    return Model("DistilRNN", tuple(config["labels"]), parameters, config, logits)


def load_teacher(folder: Path, precision: str, gpt_variant: str | None) -> Model:
    """`load_model` of an adapter, by the first process first; a student is a UserError."""
    with process().main_process_first():
        teacher = load_model(folder, precision, gpt_variant)
    if not teacher.sha256:
        raise UserError(f"--model_path {folder} is a student; a teacher is a LoRA adapter.")
    return teacher


def _load_exported(folder: Path) -> Model:
    exported = load_predictor(folder)

    def logits(sentences: list[str], together: bool = True) -> Tensor:
        return torch.from_numpy(exported.logits(sentences))

    config = read_json(folder / "config.json")
    parameters = config.get("parameters", {}).get("total", 0)
    return Model("DistilRNN", exported.labels, parameters, config, logits)


def _load_adapter(folder: Path, precision: str, gpt_variant: str | None) -> Model:
    sidecar = folder / "config.json"
    config = read_json(sidecar) if sidecar.is_file() else {}
    peft = read_json(folder / ADAPTER_CONFIG)
    try:
        recorded = config.get("decoder") or {}
        variant = gpt_variant or recorded.get("variant") or peft["base_model_name_or_path"]
        title, sha256 = recorded.get("title"), recorded.get("sha256")
        start = config.get("start_token")
        start = None if start is None else int(start)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{folder}: config.json or {ADAPTER_CONFIG} is damaged ({error}); tune it again."
        ) from error
    try:
        decoder = find_base_model(variant)
    except UserError as error:
        if gpt_variant:
            raise
        raise UserError(
            f"the base of {folder} is not at hand; name it with --gpt_variant: {error}"
        ) from error
    base_sha256 = decoder.sha256()
    if sha256 and sha256 != base_sha256:
        raise UserError(
            f"{folder} was tuned on {title} with weights {sha256[:12]}, "
            f"but {decoder.name} has {base_sha256[:12]}; name the right base with --gpt_variant."
        )
    base = decoder.base()
    # A record of PEFT's own says nothing of a length.
    positions = max_positions(base, default=DataSettings().max_length)
    max_length = config.get("max_length") or min(DataSettings().max_length, positions)
    model = load_adapter(base, folder)
    parameters, _ = parameter_counts(model)
    if resolve_precision(precision) == torch.bfloat16:
        # Not merged: bf16 would round small updates away.
        cast_frozen_to_bf16(model.base)
    else:
        merge(model.base)
    model.to(process().device)
    tokenizer = decoder.tokenizer()
    classes = model.score.out_features
    labels = tuple(config.get("labels") or map(str, range(classes)))
    if len(labels) != classes:
        raise UserError(f"{folder} has {classes} classes, but {len(labels)} labels in config.json.")

    def logits(sentences: list[str], together: bool = True) -> Tensor:
        tokens, _ = classifier.encode(tokenizer, sentences, max_length, start)
        return predict_logits(model, tokens, together=together)

    def word_logits(sentences: list[str], together: bool = True) -> list[Tensor]:
        tokens, _ = classifier.encode(tokenizer, sentences, max_length, start)
        places = classifier.word_end_positions(tokenizer, sentences, max_length, start)

        def answer(batch: Batch) -> list[Tensor]:
            every = model.logits_after_each_token(batch.input_ids).float().cpu()
            wanted = [[*places[i], len(tokens[i]) - 1] for i in batch.index.tolist()]
            return [every[row, each] for row, each in enumerate(wanted)]

        return predict(model, tokens, answer, together=together)

    sha256 = teacher_hash(base_sha256, folder / ADAPTER_WEIGHTS, max_length, start)
    title = f"{decoder.title} + LoRA"
    return Model(title, labels, parameters, config, logits, word_logits, sha256)


def _runs_nearby(folder: Path) -> str:
    """A hint at the runs that are beside a folder that wasn't one."""
    there = sorted(f.parent for f in folder.parent.glob("*/config.json") if f.parent != folder)
    return f" There is {', '.join(map(str, there))}." if there else ""
