"""Checkpoints: what a run needs to continue after an interruption, and the epoch that is chosen."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn

from potstill.errors import UserError
from potstill.files import atomic_folder, read_json, write_json, write_tensors
from potstill.ops.parameters import copy_tensors, trainable_parameters

EpochMetrics = dict[str, Any]  # a line of metrics.jsonl


def choose_epoch(history: list[EpochMetrics]) -> int:
    """Return the number of the latest epoch whose MCC on the held-out slice of train is within a
    standard error of the best; without a slice, the last.

    A few hundred sentences can't rank epochs that are closer than that (Breiman et al. 1984,
    *Classification and Regression Trees*, section 3.4.3, who then take the smallest tree). Of such
    epochs the latest is nearest to the end of the schedule, where the weights settle.
    """
    if "holdout" not in history[-1]:
        return history[-1]["epoch"]
    best = max((metrics["holdout"] for metrics in history), key=lambda scores: scores["mcc"])
    least = best["mcc"] - best["mcc_se"]
    return max(m["epoch"] for m in history if m["holdout"]["mcc"] >= least)


@dataclass(frozen=True)
class TrainResult:
    """What training returns: the metrics of every epoch, and the trainable tensors of the chosen
    one."""

    history: list[EpochMetrics]
    tensors: dict[str, Tensor]

    def restore(self, model: nn.Module) -> None:
        """Copy the chosen epoch's tensors into `model`."""
        copy_tensors(self.tensors, trainable_parameters(model))

    @property
    def chosen_epoch(self) -> int:
        return choose_epoch(self.history)

    @property
    def chosen_metrics(self) -> EpochMetrics:
        return self.history[self.chosen_epoch - 1]


class Checkpoint:
    """The state of a run after its last finished epoch, in a folder of its own.

    settings: everything that determines the outcome; a run continues only with the very same.
    stage: of a run with several; the folder holds the checkpoint of one.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], stage: str = "state"):
        self.folder, self.settings = folder, settings
        self.file = folder / f"{stage}.json"

    def exists(self) -> bool:
        return self.file.is_file()

    def save(self, result: TrainResult, trainable: dict[str, Tensor], optimizer: Any) -> None:
        """Write the checkpoint, whole or not at all; `trainable` are the tensors of now."""
        tensors = {f"best.{name}": value for name, value in result.tensors.items()}
        tensors |= {f"now.{name}": value.detach() for name, value in trainable.items()}
        for i, values in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{key}": value for key, value in values.items()}
        with atomic_folder(self.folder) as staging:
            write_tensors(staging / "state.safetensors", tensors)
            state = {"settings": self.settings, "records": result.history}
            write_json(staging / self.file.name, state)

    def load(self, trainable: dict[str, Tensor], optimizer: Any) -> TrainResult:
        """Restore `trainable` and the optimizer in place; return the result so far.

        Raises:
            UserError: There is no checkpoint, or one of a run with other settings.
        """
        if not self.exists():
            raise UserError(f"`resume`: no interrupted run in {self.folder}; run without it.")
        state = read_json(self.file)
        # Through JSON and back, as the stored ones went: tuples become lists.
        stored, settings = state["settings"], json.loads(json.dumps(self.settings))
        for key in sorted(stored.keys() | settings.keys()):
            old, new = stored.get(key), settings.get(key)
            if old != new:
                raise UserError(
                    f"`resume`: the run in {self.folder} had {key} {old}, not {new}; repeat its "
                    "settings, or run without `resume`."
                )
        tensors = load_file(self.folder / "state.safetensors")
        copy_tensors(_with_prefix(tensors, "now."), trainable)
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in _with_prefix(tensors, "optimizer.").items():
            i, name = key.split(".")
            moments.setdefault(int(i), {})[name] = value
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": moments, "param_groups": groups})
        return TrainResult(state["records"], _with_prefix(tensors, "best."))

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
