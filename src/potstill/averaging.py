"""The command average: several adapters in, one that is their mean out."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from potstill import UserError, models
from potstill.checkpoint import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    atomic_folder,
    check_writable,
    read_json,
    write_json,
    write_tensors,
)
from potstill.classifier import read_adapter_weights
from potstill.metrics import evaluation
from potstill.reporting import comparison_table, say

# Of the first one's config.json.
KEPT = ("labels", "max_length", "settings", "data", "decoder", "start_token")
# What must be alike in config.json and in adapter_config.json, for the mean to mean something.
SAME = ("labels", "decoder.sha256", "data.sha256", "max_length", "start_token")
SAME_IN_PEFT = ("target_modules", "modules_to_save", "fan_in_fan_out")


def average(members: list[Path], folder: Path) -> None:
    """Averages the adapters in `members` and writes the mean; see `commands.average`.

    Wortsman et al. 2022, *Model soups: averaging weights of multiple fine-tuned models improves
    accuracy without increasing inference time*, section 2 (the uniform soup).
    """
    if folder.resolve() in [member.resolve() for member in members]:
        raise UserError(f"--model_path: {folder} is one of the adapters; name another folder.")
    check_writable(folder.parent, "--model_path")
    configs = [_read_config(member) for member in members]
    pefts = [read_json(member / ADAPTER_CONFIG) for member in members]
    for abouts, keys in ((configs, SAME), (pefts, SAME_IN_PEFT)):
        for member, about in zip(members, abouts, strict=True):
            _check_alike(members[0], abouts[0], member, about, keys)
    rows, sha256s = {}, []
    for member, config in zip(members, configs, strict=True):
        teacher = models.load_teacher(member, "auto", None)
        rows[f"{member}, SR {config['SR']}"] = _row(teacher, member)
        sha256s.append(teacher.sha256)

    rank = sum(peft["r"] for peft in pefts)
    scalings = [peft["lora_alpha"] / peft["r"] for peft in pefts]
    tensors = mean_of_adapters([read_adapter_weights(member) for member in members], scalings)
    first = configs[0]
    config = {"command": "average", "SR": first["SR"]}
    config |= {key: first.get(key) for key in KEPT}
    config["members"] = [
        {"path": str(member), "SR": of["SR"], "sha256": sha256}
        for member, of, sha256 in zip(members, configs, sha256s, strict=True)
    ]
    with atomic_folder(folder) as staging:
        outer = {f"base_model.model.{name}": value for name, value in tensors.items()}
        write_tensors(staging / ADAPTER_WEIGHTS, outer)
        write_json(staging / ADAPTER_CONFIG, pefts[0] | {"r": rank, "lora_alpha": float(rank)})
        write_json(staging / "config.json", config)
        mean = models.load_model(staging)
        rows[f"their average, rank {rank}"] = row = _row(mean, members[0])
        write_json(
            staging / "results.json", {"chosen": row["scores"], "parameters": row["parameters"]}
        )
    comparison_table(f"{first['decoder']['title']} on {first['data']['name']}", rows)
    say(f"adapter: {folder}")


def mean_of_adapters(weights: list[dict[str, Tensor]], scalings: list[float]) -> dict[str, Tensor]:
    """One adapter whose updates are the mean of the others', exactly; heads and norms averaged.

    Σ s_i V_i U_i / n is one product V U, with all U_i one under another and all s_i V_i / n side by
    side: the ranks add up, and V U is to be scaled by 1.
    """
    mean = {}
    for name in weights[0]:
        parts = [one[name] for one in weights]
        if name.endswith(".lora_A.weight"):
            mean[name] = torch.cat(parts)
        elif name.endswith(".lora_B.weight"):
            scaled = [s / len(parts) * part for s, part in zip(scalings, parts, strict=True)]
            mean[name] = torch.cat(scaled, dim=1)
        else:
            mean[name] = torch.stack(parts).mean(0)
    return mean


def _read_config(member: Path) -> dict[str, Any]:
    config = read_json(member / "config.json")
    missing = [key for key in ("SR", *KEPT) if key not in config]
    if missing:
        raise UserError(
            f"{member} is no adapter tuned by potstill: config.json has no {missing[0]}."
        )
    return config


def _row(model: models.Model, folder: Path) -> dict[str, Any]:
    """Parameters, and scores on what the adapter in `folder` was not trained on."""
    splits = models.training_corpus(folder, model).splits
    scores = {
        name: evaluation(model.logits(split.sentences).numpy(), split.labels, split.sources)
        for name, split in splits.items()
        if name != "train"
    }
    return {"parameters": model.parameters, "scores": scores}


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
