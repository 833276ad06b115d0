"""What training has reached: chosen among its epochs, and kept to go on after an interruption."""

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

Record = dict[str, Any]


def choose(records: list[Record]) -> int:
    """Number of the latest epoch whose MCC on the held-out slice of train is within a standard
    error of the best; without a slice, the last.

    A few hundred sentences can't rank epochs that are closer than that (Breiman et al. 1984,
    *Classification and Regression Trees*, section 3.4.3, who then take the smallest tree). Of such
    epochs the latest has come nearest to the end of the schedule, where the weights settle.
    """
    if "holdout" not in records[-1]:
        return records[-1]["epoch"]
    best = max((r["holdout"] for r in records), key=lambda held: held["mcc"])
    least = best["mcc"] - best["mcc_se"]
    return max(r["epoch"] for r in records if r["holdout"]["mcc"] >= least)


@dataclass(frozen=True)
class Trained:
    """What a training run leaves: a record of every epoch, and the chosen one's trainable
    tensors."""

    records: list[Record]
    tensors: dict[str, Tensor]

    def restore(self, model: nn.Module) -> None:
        """Copy the chosen epoch's tensors into `model`."""
        copy_tensors(self.tensors, trainable_parameters(model))

    @property
    def chosen(self) -> int:
        """Number of the chosen epoch."""
        return choose(self.records)

    @property
    def best(self) -> Record:
        return self.records[self.chosen - 1]


class TrainingState:
    """The state of a run after its last finished epoch, in a folder of its own.

    `settings`: everything that decides the outcome; a run goes on only with the very same.
    `stage`: of a run of several; the folder holds the state of one.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], stage: str = "state"):
        self.folder, self.settings = folder, settings
        self.file = folder / f"{stage}.json"

    def exists(self) -> bool:
        return self.file.is_file()

    def save(self, trained: Trained, now: dict[str, Tensor], optimizer: Any) -> None:
        tensors = {f"best.{name}": value for name, value in trained.tensors.items()}
        tensors |= {f"now.{name}": value.detach() for name, value in now.items()}
        for i, values in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{key}": value for key, value in values.items()}
        with atomic_folder(self.folder) as staging:
            write_tensors(staging / "state.safetensors", tensors)
            state = {"settings": self.settings, "records": trained.records}
            write_json(staging / self.file.name, state)

    def load(self, now: dict[str, Tensor], optimizer: Any) -> Trained:
        """Restores parameters and the optimizer in place; returns what had been trained.

        Raises:
            UserError: there is no state, or one of a run with other settings.
        """
        if not self.exists():
            raise UserError(f"--resume: no interrupted run in {self.folder}; run without it.")
        state = read_json(self.file)
        # Through JSON and back, as the stored ones went: tuples become lists.
        stored, wanted = state["settings"], json.loads(json.dumps(self.settings))
        for key in sorted(stored.keys() | wanted.keys()):
            old, new = stored.get(key), wanted.get(key)
            if old != new:
                raise UserError(
                    f"--resume: the run in {self.folder} had {key} {old}, not {new}; repeat its "
                    "settings, or run without --resume."
                )
        tensors = load_file(self.folder / "state.safetensors")
        copy_tensors({name: tensors[f"now.{name}"] for name in now}, now)
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, i, kind = key.split(".")
                moments.setdefault(int(i), {})[kind] = value
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": moments, "param_groups": groups})
        best = {k.removeprefix("best."): v for k, v in tensors.items() if k.startswith("best.")}
        return Trained(state["records"], best)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
