"""The command LoRA: a corpus and a base decoder in, an adapter out."""

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path

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
from potstill.decoder.hub import find_base_model
from potstill.distillation.logit_cache import LogitCache
from potstill.files import ADAPTER_WEIGHTS
from potstill.ops import kernels
from potstill.recipes._run import (
    Run,
    check_target,
    describe_run,
    fit,
    read_task,
    write_run,
)
from potstill.recipes.console import log_choice, parameter_line
from potstill.settings import DataSettings, LoRASettings, TrainSettings
from potstill.training.distributed import process
from potstill.training.losses import classification_loss
from potstill.training.precision import cast_frozen_to_bf16, resolve_precision

EPOCHS = 3

logger = logging.getLogger(__name__)


def tune(
    base_name: str,
    *,
    seed: int,
    lora: LoRASettings,
    data: DataSettings,
    train: TrainSettings,
    folder: Path,
    plots_path: Path,
) -> None:
    """Tune a base decoder and write the adapter to `folder`; see `commands.LoRA`."""
    check_target(folder, "model_path", plots_path, train.resume)
    with process().main_process_first():
        base_model = find_base_model(base_name)
    log_choice("base", base_model.title, base_model.reason)
    task = read_task(data, seed)

    base, tokenizer = base_model.base(), base_model.tokenizer()
    max_length = min(data.max_length, max_positions(base, default=data.max_length))
    data = replace(data, max_length=max_length)
    train = replace(train, epochs=train.epochs or EPOCHS)
    start = tokenizer.bos_token_id
    evaluations = {}
    for name, split in task.splits().items():
        tokens, cut = encode(tokenizer, split.sentences, max_length, start)
        if cut:
            logger.info(
                f"{cut} sentences of {name} are truncated to `max_length` {max_length} tokens"
            )
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

    config = describe_run("LoRA", seed, task.corpus, [lora, data, train])
    config["decoder"] = base_model.describe()
    config["start_token"] = start
    config["parameters"] = {"total": total, "trainable": trainable}
    title = f"{base_model.title}, LoRA rank {lora.LoRA_rank}, on {task.corpus.name}, SR {seed}"
    run = Run(task, config, train, folder, plots_path / "lora_training_plot.png", title)

    trained = fit(run, model, dataset, evaluations, classification_loss, MICROBATCH_TOKENS)
    save = partial(_save_and_reload, model, str(base_model.folder))
    result = write_run(run, model, evaluations, trained, save=save)
    logger.info(f"adapter: {folder}\nplot: {run.plot}")
    # These logits need not be computed again when this model becomes a teacher.
    if process().is_main_process:
        weights, sha256 = folder / ADAPTER_WEIGHTS, config["decoder"]["sha256"]
        cache = LogitCache(teacher_hash(sha256, weights, max_length, start))
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
