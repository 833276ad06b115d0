"""The command average: several adapters in, one that is their mean out."""

import logging
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from potstill.calibration import probabilities
from potstill.data.corpus import Corpus
from potstill.decoder.adapter import (
    common_rank,
    mean_of_adapters,
    read_adapter_weights,
    write_adapter_weights,
)
from potstill.errors import UserError
from potstill.files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    atomic_folder,
    check_replaceable,
    check_writable,
    read_json,
    write_json,
)
from potstill.inference.decoder import DecoderClassifier
from potstill.inference.evaluation import Scores, scores_and_logits
from potstill.inference.teacher import load_teacher
from potstill.locks import exclusive
from potstill.manifest import check_manifest
from potstill.model_card import write_card
from potstill.recipes._corpus import evaluation_corpus
from potstill.recipes._description import describe_run
from potstill.recipes.tables import comparison_table
from potstill.report.predictions import write_predictions
from potstill.settings import DataSettings
from potstill.training.distributed import process

# Without these being equal, the mean of adapters means nothing.
MUST_MATCH = ("labels", "decoder.sha256", "data.sha256", "max_length", "start_token")
MUST_MATCH_PEFT = ("target_modules", "modules_to_save", "fan_in_fan_out")
REQUIRED_KEYS = ("SR", "labels", "max_length", "settings", "data", "decoder", "start_token")

logger = logging.getLogger(__name__)


def average(adapters: list[Path], data: str, *, gpt_variant: str | None, folder: Path) -> None:
    """Average `adapters` and write the mean to `folder`; see `commands.average`.

    Wortsman et al. 2022, *Model soups: averaging weights of multiple fine-tuned models improves
    accuracy without increasing inference time*, section 2 (the uniform soup).

    Raises:
        UserError: The adapters do not fit each other, or `folder` can't be written.
    """
    if process().num_processes > 1:
        raise UserError("average is the work of one process; start it without a launcher.")
    for adapter in adapters:
        if adapter.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"`model_path`: {folder} holds {adapter}; name another folder.")
    check_replaceable(folder, "`model_path`")
    check_writable(folder.parent, "`model_path`")
    configs = [_read_config(adapter) for adapter in adapters]
    adapter_configs = [read_json(adapter / ADAPTER_CONFIG) for adapter in adapters]
    _check_alike(adapters, configs, MUST_MATCH)
    _check_alike(adapters, adapter_configs, MUST_MATCH_PEFT)

    scalings = [config["lora_alpha"] / config["r"] for config in adapter_configs]
    tensors = mean_of_adapters([read_adapter_weights(adapter) for adapter in adapters], scalings)
    rank = common_rank(tensors)

    rows: dict[str, Any] = {}
    sources: list[dict[str, Any]] = []
    corpus: Corpus | None = None
    for adapter, config in zip(adapters, configs, strict=True):
        classifier = load_teacher(adapter, gpt_variant=gpt_variant)
        corpus = corpus or evaluation_corpus(adapter, classifier, data)
        rows[f"{adapter}, SR {config['SR']}"] = _row(classifier, classifier.evaluate(corpus))
        sources.append({"path": str(adapter), "SR": config["SR"], "sha256": classifier.sha256})
        del classifier  # before the next is loaded
    assert corpus

    first = configs[0]
    settings = DataSettings(**{f.name: first["settings"][f.name] for f in fields(DataSettings)})
    config = describe_run("average", first["SR"], corpus, [settings])
    config |= {key: first[key] for key in ("labels", "data", "decoder", "start_token")}
    config |= {"settings": asdict(settings), "adapters": sources}
    with exclusive(folder, "`model_path`"), atomic_folder(folder) as staging:
        write_adapter_weights(staging, tensors)
        adapter_config = adapter_configs[0] | {"r": rank, "lora_alpha": float(rank)}
        write_json(staging / ADAPTER_CONFIG, adapter_config)
        write_json(staging / "config.json", config)
        mean = DecoderClassifier(staging, gpt_variant=gpt_variant)
        scores, logits = scores_and_logits(mean, corpus)
        rows[f"their average, rank {rank}"] = _row(mean, scores)
        config["parameters"] = {"total": mean.n_parameters, "trainable": 0}
        write_json(staging / "config.json", config)
        results = {"chosen": scores, "parameters": mean.n_parameters}
        write_json(staging / "results.json", results)
        probs = {name: probabilities(x / mean.temperature) for name, x in logits.items()}
        answers = {name: mean.decide(of_split) for name, of_split in probs.items()}
        scored = {name: corpus.splits[name] for name in logits}
        write_predictions(staging, mean.classes_.tolist(), scored, probs, answers)
        write_card(staging, "adapter", config, results)
    comparison_table(f"{first['decoder']['title']} on {corpus.name}", rows)
    logger.info(f"adapter: {folder}")


def _row(classifier: DecoderClassifier, scores: Scores) -> dict[str, Any]:
    return {"parameters": classifier.n_parameters, "scores": scores}


def _read_config(adapter: Path) -> dict[str, Any]:
    check_manifest(adapter, ("config.json", ADAPTER_CONFIG, ADAPTER_WEIGHTS))
    config = read_json(adapter / "config.json")
    missing = [key for key in REQUIRED_KEYS if key not in config]
    if missing:
        raise UserError(
            f"{adapter} is no adapter tuned by potstill: config.json has no {missing[0]}."
        )
    return config


def _check_alike(
    adapters: list[Path], configs: list[dict[str, Any]], keys: tuple[str, ...]
) -> None:
    """Raise UserError if `configs` differ in one of `keys`; "a.b" is key b of the dict under a."""
    for adapter, config in zip(adapters[1:], configs[1:], strict=True):
        for key in keys:
            group, _, name = key.rpartition(".")
            first, other = ((c[group] if group else c).get(name) for c in (configs[0], config))
            if first != other:
                raise UserError(
                    f"{adapters[0]} and {adapter} can't be averaged: they differ in {key} "
                    f"({first}, {other})."
                )
