"""The command LoRA: a corpus and a base decoder in, an adapter out."""

from dataclasses import replace
from pathlib import Path

import torch

from potstill.console import parameter_line, say, say_choice
from potstill.decoder import classifier
from potstill.decoder.adapter import load_adapter_weights, save_adapter, teacher_hash
from potstill.decoder.base import max_positions
from potstill.decoder.classifier import MICROBATCH_TOKENS, build_lora_classifier, parameter_counts
from potstill.decoder.hub import find_base_model
from potstill.distillation.logit_cache import KeptLogits
from potstill.files import ADAPTER_WEIGHTS
from potstill.ops import kernels
from potstill.recipes._run import Run, carry_out, check_target, describe_run, read_task
from potstill.settings import DataSettings, LoRASettings, TrainSettings
from potstill.training.distributed import process
from potstill.training.loop import Examples
from potstill.training.precision import cast_frozen_to_bf16, resolve_precision

EPOCHS = 3


def tune(
    SR: int,
    lora: LoRASettings,
    data: DataSettings,
    settings: TrainSettings,
    gpt_variant: str,
    folder: Path,
    plots_path: Path,
) -> None:
    """Tunes the decoder and writes the adapter to `folder`; see `commands.LoRA`."""
    check_target(folder, "--model_path", plots_path, settings.resume)
    with process().main_process_first():
        decoder = find_base_model(gpt_variant)
    say_choice("base", decoder.title, decoder.reason)
    task = read_task(data, SR)
    epochs = settings.epochs or EPOCHS
    base, tokenizer = decoder.base(), decoder.tokenizer()
    positions = max_positions(base, default=data.max_length)
    data = replace(data, max_length=min(data.max_length, positions))
    start = tokenizer.bos_token_id
    examples = {}
    for name, split in task.splits().items():
        tokens, cut = classifier.encode(tokenizer, split.sentences, data.max_length, start)
        if cut:
            say(f"{cut} sentences of {name} are cut at --max_length {data.max_length} tokens")
        examples[name] = Examples(tokens, split.labels)

    torch.manual_seed(SR)
    model = build_lora_classifier(
        base, len(task.corpus.labels), lora.LoRA_rank, lora.alpha, lora.LoRA_dropout
    )
    precision = resolve_precision(settings.precision)
    if precision == torch.bfloat16:
        cast_frozen_to_bf16(model.base)
    total, trainable = parameter_counts(model)
    arithmetic = str(precision).removeprefix("torch.")
    if precision == torch.bfloat16 and kernels.compiler_missing():
        arithmetic += " (with a C compiler, cc or $CC, it would be faster)"
    say(f"{parameter_line(total, trainable)}; arithmetic: {arithmetic}")
    config = describe_run("LoRA", SR, task.corpus, [lora, data, settings], epochs)
    config["decoder"] = decoder.describe()
    config["start_token"] = start
    config["parameters"] = {"total": total, "trainable": trainable}

    def save(staging: Path) -> None:
        """Writes the adapter and reads it back, so that what is scored is what was written."""
        save_adapter(model, staging, str(decoder.folder))
        load_adapter_weights(model, staging)

    plot = plots_path / "lora_training_plot.png"
    title = f"{decoder.title}, LoRA rank {lora.LoRA_rank}, on {task.corpus.name}, SR {SR}"
    run = Run(task, config, settings, folder, plot, title)
    loss, part_tokens = task.cross_entropy(), MICROBATCH_TOKENS
    outcome = carry_out(run, model, examples, loss, save, part_tokens=part_tokens)
    say(f"adapter: {folder}\nplot: {plot}")
    # What was just computed needs no second time when this model becomes a teacher.
    if process().is_main_process:
        weights = folder / ADAPTER_WEIGHTS
        kept = KeptLogits(
            teacher_hash(config["decoder"]["sha256"], weights, data.max_length, start)
        )
        for name, split in task.scored.items():
            kept.put(split.sentences, outcome.logits[name])
