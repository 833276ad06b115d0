"""The command LoRA: a corpus and a base decoder in, an adapter out."""

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from potstill.data.batching import LabelledDataset
from potstill.decoder.adapter import load_adapter_weights, save_adapter, teacher_hash
from potstill.decoder.base import max_positions
from potstill.decoder.classifier import (
    MICROBATCH_TOKENS,
    Classifier,
    build_lora_classifier,
    encode,
    parameter_counts,
)
from potstill.decoder.hub import BaseModel, find_base_model
from potstill.distillation.logit_cache import LogitCache
from potstill.files import ADAPTER_WEIGHTS
from potstill.inference.decoder import DecoderClassifier
from potstill.ops import kernels
from potstill.progress import Progress, no_progress
from potstill.recipes._decisions import (
    Adjustment,
    check_decisions,
    class_weights,
    no_bias,
    temperature_on_holdout,
)
from potstill.recipes._description import describe_run
from potstill.recipes._language import log_foreign_text
from potstill.recipes._run import Run, fit, read_task, write_run
from potstill.recipes._unfinished import alone_in, check_target
from potstill.recipes.console import log_choice, log_truncated, parameter_line
from potstill.settings import DataSettings, DecisionSettings, LoRASettings, TrainSettings
from potstill.training.distributed import process
from potstill.training.losses import classification_loss
from potstill.training.precision import cast_frozen_to_bf16, resolve_precision

EPOCHS = 3
BATCH_SIZE = 32
LR = 6e-4

logger = logging.getLogger(__name__)


def finetune(
    base: BaseModel | str | Path = "auto",
    data: Any = "auto",
    *,
    seed: int,
    lora: LoRASettings = LoRASettings(),
    data_settings: DataSettings = DataSettings(),
    train: TrainSettings = TrainSettings(),
    decisions: DecisionSettings = DecisionSettings(),
    output: str | Path | None = None,
    plots_path: str | Path | None = None,
    progress: Progress = no_progress,
) -> DecoderClassifier:
    """Tune a base model on labelled sentences with LoRA (low-rank adaptation).

    Args:
        base: A base model, or its name: "gpt2" and its sizes, "distilgpt2", "smollm2", any causal
            language model of the Hugging Face Hub, a local folder, or "auto": GPT-2 if it is
            cached or can be downloaded, else SmolLM2.
        data: Labelled sentences: a corpus, or what `load_corpus` makes one of: a file, a folder, a
            DataFrame, two lists, "cola", "minicola", or "auto": CoLA if it is in data/ or can be
            downloaded, else MiniCoLA.
        seed: Determines the held-out slice, the first weights and the order of the sentences.
        data_settings: The columns of a file, the held-out slice and the maximum length; `data`
            takes the place of its own.
        train: How it is trained.
        decisions: Class weights, calibration of the probabilities, and the goal of the thresholds.
        output: Folder to write the run to. Default: runs/LoRA-SEED. A run that is there is
            replaced.
        plots_path: Folder for lora_training_plot.png. Default: no plot.
        progress: Shows how far it is.

    Returns:
        The tuned decoder, loaded from `output`.

    Raises:
        UserError: The base model or the data is missing or damaged, or `output` holds anything
            but a run.
    """
    folder = Path(output or f"runs/LoRA-{seed}")
    train_adapter(
        base,
        data,
        seed=seed,
        lora=lora,
        data_settings=data_settings,
        train=train,
        decisions=decisions,
        folder=folder,
        plots_path=Path(plots_path) if plots_path else None,
        progress=progress,
    )
    variant = str(base.folder) if isinstance(base, BaseModel) else None
    return DecoderClassifier(folder, gpt_variant=variant, precision=train.precision)


def train_adapter(
    base_model: BaseModel | str | Path,
    data: Any,
    *,
    seed: int,
    lora: LoRASettings,
    data_settings: DataSettings,
    train: TrainSettings,
    decisions: DecisionSettings,
    folder: Path,
    plots_path: Path | None,
    progress: Progress,
) -> None:
    """Do as `finetune`, without loading the result a second time."""
    check_target(folder, plots_path, train)
    if not isinstance(base_model, BaseModel):
        with process().main_process_first():
            base_model = find_base_model(str(base_model))
    log_choice("base", base_model.title, base_model.reason)
    task, data_settings = read_task(data, data_settings, seed)
    check_decisions(decisions, task.corpus.labels, task.scored)
    weights = class_weights(decisions, task.train, task.corpus.labels)

    base, tokenizer = base_model.base(), base_model.tokenizer()
    max_length = data_settings.max_length
    max_length = min(max_length, max_positions(base, default=max_length))
    data_settings = replace(data_settings, max_length=max_length)
    plan = train.with_defaults(epochs=EPOCHS, batch_size=BATCH_SIZE, lr=LR)
    start = tokenizer.bos_token_id
    log_foreign_text(tokenizer, task.train.sentences)
    evaluations = {}
    for name, split in task.splits().items():
        tokens, cut = encode(tokenizer, split.sentences, max_length, start)
        log_truncated(cut, max_length, name)
        evaluations[name] = LabelledDataset(tokens, split.labels)
    dataset = evaluations.pop("train")

    torch.manual_seed(seed)
    classes = len(task.corpus.labels)
    model = build_lora_classifier(
        base, classes, rank=lora.LoRA_rank, alpha=lora.alpha, dropout=lora.LoRA_dropout
    )
    precision = resolve_precision(train.precision)
    if precision == torch.bfloat16:
        cast_frozen_to_bf16(model.base)
    total, trainable = parameter_counts(model)
    logger.info(f"{parameter_line(total, trainable)}; arithmetic: {_arithmetic(precision)}")

    config = describe_run("LoRA", seed, task.corpus, [lora, data_settings, plan, decisions])
    config["decoder"] = base_model.describe()
    config["start_token"] = start
    config["parameters"] = {"total": total, "trainable": trainable}
    title = f"{base_model.title}, LoRA rank {lora.LoRA_rank}, on {task.corpus.name}, SR {seed}"
    plot = plots_path / "lora_training_plot.png" if plots_path else None
    run = Run(task, config, plan, folder, plot, title)

    with alone_in(folder, train):
        trained = fit(
            run,
            model,
            dataset,
            evaluations,
            loss_function=partial(classification_loss, class_weights=weights),
            microbatch_tokens=MICROBATCH_TOKENS,
            progress=progress,
        )
        save = partial(_save_and_reload, model, str(base_model.folder))
        temperature = temperature_on_holdout(decisions, model, evaluations)
        # Not in the weights: students learn from the logits as they are, and PEFT reads the head.
        adjustment = Adjustment(no_bias(classes), temperature, in_weights=False)
        result = write_run(
            run, model, evaluations, trained, save=save, decisions=decisions, adjustment=adjustment
        )
    logger.info(f"adapter: {folder}")
    if plot:
        logger.info(f"plot: {plot}")
    # These logits need not be computed again when this model becomes a teacher.
    if process().is_main_process:
        adapter, sha256 = folder / ADAPTER_WEIGHTS, config["decoder"]["sha256"]
        kind = "-bf16" if precision == torch.bfloat16 else "-fp32"
        cache = LogitCache(teacher_hash(sha256, adapter, max_length, start), kind)
        for name, split in task.scored.items():
            cache.put(split.sentences, result.logits[name])


def _arithmetic(precision: torch.dtype) -> str:
    name = str(precision).removeprefix("torch.")
    if precision == torch.bfloat16 and kernels.compiler_missing():
        return f"{name} (faster with a C compiler, cc or $CC)"
    return name


def _save_and_reload(model: Classifier, base_path: str, folder: Path) -> None:
    """Write the adapter and read it back, so that what is scored is what was written."""
    save_adapter(model, folder, base_path)
    load_adapter_weights(model, folder)
