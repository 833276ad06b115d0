"""Runs as training leaves them, made up."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from potstill.data.splits import Split
from potstill.files import write_json, write_text
from potstill.metrics import evaluation
from potstill.report.predictions import write_predictions
from potstill.settings import DataSettings, PretrainSettings, StudentSettings, TrainSettings

SIZE = 60
EPOCHS = 3


def settings_of_rnn(**changes: Any) -> dict[str, Any]:
    groups = (
        StudentSettings(),
        PretrainSettings(),
        DataSettings(),
        TrainSettings(batch_size=32, lr=0.002),
    )
    return {k: v for group in groups for k, v in vars(group).items()} | changes


def make_run(
    folder: Path,
    seed: int = 1,
    labels: tuple[str, ...] = ("bad", "good"),
    name: str = "reviews",
    texts: tuple[str, ...] = (),
    **settings: Any,
) -> Path:
    """Write a run of `rnn` whose model is right about two times in three."""
    generator = np.random.default_rng(seed)
    truth = np.random.default_rng(0).integers(0, len(labels), SIZE)
    sentences = [*texts, *(f"Sentence number {i}." for i in range(len(texts), SIZE))]
    split = Split(sentences, truth.tolist(), [f"g{i % 3}" for i in range(SIZE)])
    logits = generator.normal(size=(SIZE, len(labels)))
    logits[np.arange(SIZE), truth] += 1.0
    scores = evaluation(logits, split.labels, split.sources)
    folder.mkdir(parents=True)
    config = {
        "command": "rnn",
        "SR": seed,
        "labels": list(labels),
        "max_length": 128,
        "settings": settings_of_rnn(data="reviews.csv", epochs=EPOCHS, **settings),
        "data": {
            "name": name,
            "path": "reviews.csv",
            "sha256": "a" * 64,
            "labels": list(labels),
            "sentences": {"train": 540, "dev": SIZE},
        },
        "parameters": {"total": 2_800_000, "trainable": 2_800_000},
        "versions": {"potstill": "0.1.0"},
        "machine": {"system": "Linux"},
    }
    epoch = {key: scores[key] for key in ("loss", "accuracy", "mcc")}
    history = [
        {"epoch": e, "train": epoch, "dev": epoch, "seconds": 2.0, "sentences_per_second": 270.0}
        for e in range(1, EPOCHS + 1)
    ]
    write_json(folder / "config.json", config)
    results = {"chosen_epoch": EPOCHS, "chosen": {"dev": scores}, "last": history[-1]}
    write_json(folder / "results.json", results | {"bias": [0.0], "parameters": 2_800_000})
    write_text(folder / "metrics.jsonl", "".join(json.dumps(m) + "\n" for m in history))
    powers = np.exp(logits)
    probabilities = {"dev": powers / powers.sum(1, keepdims=True)}
    write_predictions(folder, labels, {"dev": split}, probabilities, {"dev": logits.argmax(1)})
    return folder


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return make_run(tmp_path / "runs" / "rnn-1")
