"""A run read back from its folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.errors import UserError
from potstill.files import (
    ADAPTER_WEIGHTS,
    RESULTS,
    STUDENT_ONNX,
    STUDENT_WEIGHTS,
    read_json,
    read_results,
)
from potstill.parsing import parse_json
from potstill.report.predictions import Prediction, read_predictions

METRICS = "metrics.jsonl"
SCORES = ("sentences", "loss", "accuracy", "majority", "mcc", "mcc_95", "confusion", "groups")
KEYS = ("command", "SR", "labels", "settings", "data", "versions")


@dataclass(frozen=True)
class RunRecord:
    """What a run's folder says of it.

    Args:
        folder: The folder.
        config: Its config.json.
        results: Its results.json.
        history: The metrics of each epoch; empty for an average of adapters.
        predictions: The predictions of each split; empty where the run recorded none.
        sizes: Bytes of the model's files, by name.
    """

    folder: Path
    config: dict[str, Any]
    results: dict[str, Any]
    history: list[dict[str, Any]]
    predictions: dict[str, list[Prediction]]
    sizes: dict[str, int]

    @property
    def title(self) -> str:
        """Return what the run trained, on what."""
        config = self.config
        model = "DistilRNN"
        if decoder := config.get("decoder"):
            rank = config["settings"].get("LoRA_rank")
            model = f"{decoder['title']} + LoRA" + (f", rank {rank}" if rank else "")
        elif teacher := config.get("teacher"):
            model = f"DistilRNN from {teacher['title']}"
        elif config["command"] == "rnn":
            model = "DistilRNN without a teacher"
        return f"{model}, on {config['data']['name']}, SR {config['SR']}"


def read_run(folder: Path) -> RunRecord:
    """Read the run in `folder`.

    Raises:
        UserError: There is no run, or its files are damaged.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; name the folder of a run.")
    if not (folder / RESULTS).is_file():
        raise UserError(f"{folder} holds no run: there is no {RESULTS}; name the folder of a run.")
    config, results = read_json(folder / "config.json"), read_results(folder)
    missing = [key for key in KEYS if not isinstance(config, dict) or key not in config]
    if missing:
        raise UserError(f"{folder} holds no whole run: config.json has no {missing[0]}.")
    scored = results.get("chosen")
    if not isinstance(scored, dict) or not all(
        isinstance(scores, dict) and set(SCORES) <= scores.keys() for scores in scored.values()
    ):
        raise UserError(f"{folder} holds no whole run: {RESULTS} lacks scores.")
    names = (ADAPTER_WEIGHTS, STUDENT_WEIGHTS, STUDENT_ONNX)
    sizes = {n: (folder / n).stat().st_size for n in names if (folder / n).is_file()}
    return RunRecord(folder, config, results, _history(folder), read_predictions(folder), sizes)


def _history(folder: Path) -> list[dict[str, Any]]:
    file = folder / METRICS
    if not file.is_file():
        return []
    history = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            metrics = parse_json(line)
            if not isinstance(metrics["epoch"], int):
                raise ValueError("epoch is no number")
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{file}:{number} is damaged ({error}).") from error
        history.append(metrics)
    return history
