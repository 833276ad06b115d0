"""The command average: several adapters in, one that is their mean out."""

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from potstill.console import say
from potstill.decoder.adapter import (
    common_rank,
    mean_of_adapters,
    read_adapter_weights,
    write_adapter_weights,
)
from potstill.errors import UserError
from potstill.files import ADAPTER_CONFIG, atomic_folder, check_writable, read_json, write_json
from potstill.inference.classifiers import Model, load_model, load_teacher
from potstill.metrics import evaluation
from potstill.recipes._corpus import evaluation_corpus
from potstill.recipes._run import check_replaceable, describe_run
from potstill.recipes.tables import comparison_table
from potstill.settings import DataSettings
from potstill.training.distributed import process

# What must be alike in config.json and in adapter_config.json, for the mean to mean something.
SAME = ("labels", "decoder.sha256", "data.sha256", "max_length", "start_token")
SAME_IN_PEFT = ("target_modules", "modules_to_save", "fan_in_fan_out")


def average(members: list[Path], data: str, gpt_variant: str | None, folder: Path) -> None:
    """Averages the adapters in `members` and writes the mean; see `commands.average`.

    Wortsman et al. 2022, *Model soups: averaging weights of multiple fine-tuned models improves
    accuracy without increasing inference time*, section 2 (the uniform soup).
    """
    if process().num_processes > 1:
        raise UserError("average is the work of one process; start it without a launcher.")
    for member in members:
        if member.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"--model_path: {folder} holds {member}; name another folder.")
    check_replaceable(folder, "--model_path")
    check_writable(folder.parent, "--model_path")
    configs = [_read_config(member) for member in members]
    pefts = [read_json(member / ADAPTER_CONFIG) for member in members]
    for abouts, keys in ((configs, SAME), (pefts, SAME_IN_PEFT)):
        for member, about in zip(members, abouts, strict=True):
            _check_alike(members[0], abouts[0], member, about, keys)
    scalings = [peft["lora_alpha"] / peft["r"] for peft in pefts]
    tensors = mean_of_adapters([read_adapter_weights(member) for member in members], scalings)
    rank = common_rank(tensors)

    def row(model: Model) -> dict[str, Any]:
        scores = {
            name: evaluation(model.logits(split.sentences).numpy(), split.labels, split.sources)
            for name, split in corpus.splits.items()
        }
        return {"parameters": model.parameters, "scores": scores}

    rows: dict[str, Any] = {}
    sources: list[dict[str, Any]] = []
    for member, config in zip(members, configs, strict=True):
        teacher = load_teacher(member, "auto", gpt_variant)
        if not sources:
            corpus = evaluation_corpus(member, teacher, data)
        rows[f"{member}, SR {config['SR']}"] = row(teacher)
        sources.append({"path": str(member), "SR": config["SR"], "sha256": teacher.sha256})
        del teacher  # before the next is there
    first = configs[0]
    settings = DataSettings(**{f.name: first["settings"][f.name] for f in fields(DataSettings)})
    config = describe_run("average", first["SR"], corpus, [settings], 0)
    config |= {key: first[key] for key in ("labels", "data", "decoder", "start_token")}
    config |= {"settings": asdict(settings), "adapters": sources}
    with atomic_folder(folder) as staging:
        write_adapter_weights(staging, tensors)
        write_json(staging / ADAPTER_CONFIG, pefts[0] | {"r": rank, "lora_alpha": float(rank)})
        write_json(staging / "config.json", config)
        mean = load_model(staging, gpt_variant=gpt_variant)
        rows[f"their average, rank {rank}"] = of_mean = row(mean)
        config["parameters"] = {"total": mean.parameters, "trainable": 0}
        write_json(staging / "config.json", config)
        results = {"chosen": of_mean["scores"], "parameters": mean.parameters}
        write_json(staging / "results.json", results)
    comparison_table(f"{first['decoder']['title']} on {corpus.name}", rows)
    say(f"adapter: {folder}")


def _read_config(member: Path) -> dict[str, Any]:
    config = read_json(member / "config.json")
    needed = ("SR", "labels", "max_length", "settings", "data", "decoder", "start_token")
    missing = [key for key in needed if key not in config]
    if missing:
        raise UserError(
            f"{member} is no adapter tuned by potstill: config.json has no {missing[0]}."
        )
    return config


def _check_alike(
    one: Path, first: dict[str, Any], other: Path, second: dict[str, Any], keys: tuple[str, ...]
) -> None:
    for key in keys:
        group, _, name = key.rpartition(".")
        values = [(about[group] if group else about).get(name) for about in (first, second)]
        if values[0] != values[1]:
            raise UserError(
                f"{one} and {other} can't be averaged: they differ in {key} ({values[0]}, "
                f"{values[1]})."
            )
