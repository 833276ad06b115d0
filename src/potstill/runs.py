"""One run, one folder: what is written when training ends, and loading it again."""

import importlib.metadata
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from potstill import UserError, __version__, classifier, student
from potstill.batching import predict_logits
from potstill.checkpoint import atomic_folder, check_writable, read_json, write_json, write_text
from potstill.corpus import Corpus, Split, hold_out
from potstill.decoder import Decoder, find_decoder
from potstill.distillation import teacher_hash
from potstill.lora import merge
from potstill.metrics import evaluation
from potstill.settings import DataSettings
from potstill.training import Trained, resolve_precision

LIBRARIES = ("torch", "transformers", "tokenizers", "accelerate", "numpy")


@dataclass(frozen=True)
class Task:
    """A corpus made ready for a run: `train` without the slice held out of it, and the splits
    that every epoch is scored on ("holdout", "dev", "ood", those there are)."""

    corpus: Corpus
    train: Split
    scored: dict[str, Split]

    def labels(self) -> dict[str, list[int]]:
        """Labels of all splits, train among them."""
        return {"train": self.train.labels} | {n: s.labels for n, s in self.scored.items()}


def make_task(corpus: Corpus, settings: DataSettings, seed: int) -> Task:
    train = corpus.splits["train"]
    scored = {name: split for name, split in corpus.splits.items() if name != "train"}
    if settings.holdout:
        train, held = hold_out(train, settings.holdout, seed)
        scored = {"holdout": held} | scored
    return Task(corpus, train, scored)


def check_target(folder: Path, flag: str) -> None:
    """Raises UserError unless a run's folder can be written and replaces nothing but a run."""
    if folder.exists():
        ours = (folder / "config.json").is_file() and "potstill" in read_json(
            folder / "config.json"
        ).get("versions", {})
        if not folder.is_dir() or not (ours or not any(folder.iterdir())):
            raise UserError(f"{flag}: {folder} is there and is no run of potstill; name another.")
    check_writable(folder.parent, flag)


def describe_run(
    command: str, SR: int, corpus: Corpus, settings: list[Any], epochs: int
) -> dict[str, Any]:
    """What config.json says of every run: settings, data with its hash, versions, machine."""
    flat: dict[str, Any] = {}
    for group in settings:
        flat |= asdict(group)
    versions = {"potstill": __version__, "python": platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in LIBRARIES}
    return {
        "command": command,
        "SR": SR,
        "labels": list(corpus.labels),
        "max_length": flat["max_length"],
        "settings": flat | {"epochs": epochs},
        "data": corpus.describe(),
        "versions": versions,
        "machine": {"system": platform.platform(), "threads": torch.get_num_threads()},
    }


def write_run(
    folder: Path,
    config: dict[str, Any],
    trained: Trained,
    results: dict[str, Any],
    save_weights: Callable[[Path], None],
) -> None:
    """Writes the whole folder at once: config.json, metrics.jsonl, results.json, the weights."""
    import json

    with atomic_folder(folder) as staging:
        save_weights(staging)
        write_json(staging / "config.json", config)
        lines = "".join(json.dumps(record) + "\n" for record in trained.records)
        write_text(staging / "metrics.jsonl", lines)
        write_json(staging / "results.json", results)


def score_splits(logits: dict[str, Tensor], splits: dict[str, Split]) -> dict[str, Any]:
    """`metrics.evaluation` of every split."""
    return {
        name: evaluation(logits[name].numpy(), split.labels, split.sources)
        for name, split in splits.items()
    }


@dataclass(frozen=True)
class Model:
    """A saved model at hand.

    title: for tables; labels: names of its classes; parameters: their number; config: the run's
    config.json; logits: maps N sentences to (N, classes); sha256: of a teacher, what settles its
    logits, else empty.
    """

    title: str
    labels: tuple[str, ...]
    parameters: int
    config: dict[str, Any]
    logits: Callable[[list[str]], Tensor]
    sha256: str = ""


def load_model(folder: Path, precision: str = "auto", gpt_variant: str | None = None) -> Model:
    """Loads a LoRA adapter (ours or PEFT's) with its base, or a student.

    Raises:
        UserError: nothing there, damaged, or a base other than the one it was tuned on.
    """
    if not folder.is_dir():
        raise UserError(f"--model_path {folder}: there is no such folder.{_runs_nearby(folder)}")
    if (folder / classifier.ADAPTER_CONFIG).is_file():
        return _load_adapter(folder, precision, gpt_variant)
    if not (folder / student.STUDENT_WEIGHTS).is_file():
        raise UserError(
            f"--model_path {folder} holds neither an adapter ({classifier.ADAPTER_CONFIG}) nor a "
            f"student ({student.STUDENT_WEIGHTS}).{_runs_nearby(folder)}"
        )
    config = read_json(folder / "config.json")
    model, tokenizer = student.load_student(folder)

    def logits(sentences: list[str]) -> Tensor:
        return predict_logits(model, student.encode(tokenizer, sentences, config["max_length"]))

    parameters, _ = classifier.parameter_counts(model)
    return Model("DistilRNN", tuple(config["labels"]), parameters, config, logits)


def _load_adapter(folder: Path, precision: str, gpt_variant: str | None) -> Model:
    sidecar = folder / "config.json"
    config = read_json(sidecar) if sidecar.is_file() else {}
    recorded = config.get("decoder", {})
    peft = read_json(folder / classifier.ADAPTER_CONFIG)
    variant = gpt_variant or recorded.get("variant") or peft["base_model_name_or_path"]
    decoder = find_decoder(variant)
    base_sha256 = decoder.sha256()
    if recorded and recorded["sha256"] != base_sha256:
        raise UserError(
            f"{folder} was tuned on {recorded['title']} with weights {recorded['sha256'][:12]}, "
            f"but {decoder.variant} has {base_sha256[:12]}; name the right base with --gpt_variant."
        )
    model = classifier.load_adapter(decoder.base(), folder)
    parameters, _ = classifier.parameter_counts(model)
    merge(model)
    if resolve_precision(precision) == torch.bfloat16:
        model.base.to(torch.bfloat16)
    tokenizer = decoder.tokenizer()
    max_length = config.get("max_length", DataSettings().max_length)
    classes = model.score.out_features
    labels = tuple(config.get("labels") or map(str, range(classes)))

    def logits(sentences: list[str]) -> Tensor:
        tokens, _ = classifier.encode(tokenizer, sentences, max_length)
        return predict_logits(model, tokens)

    sha256 = teacher_hash(base_sha256, folder / classifier.ADAPTER_WEIGHTS, max_length)
    return Model(f"{decoder.title} + LoRA", labels, parameters, config, logits, sha256)


def _runs_nearby(folder: Path) -> str:
    """A hint at the runs that are beside a folder that wasn't one."""
    there = sorted(f.parent for f in folder.parent.glob("*/config.json"))
    return f" There is {', '.join(map(str, there))}." if there else ""


def newest_run(runs: Path = Path("runs")) -> Path:
    """The student trained last in `runs`, else the adapter tuned last."""
    for weights in (student.STUDENT_WEIGHTS, classifier.ADAPTER_WEIGHTS):
        found = sorted(runs.glob(f"*/{weights}"), key=lambda file: file.stat().st_mtime)
        if found:
            return found[-1].parent
    raise UserError(
        f"there is no trained model in {runs}/ yet; train one, or name it with --model_path."
    )


def describe_decoder(decoder: Decoder) -> dict[str, str]:
    """What a run records of its base."""
    return {
        "variant": decoder.variant,
        "title": decoder.title,
        "sha256": decoder.sha256(),
        "folder": str(decoder.folder),
    }
