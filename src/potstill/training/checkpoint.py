"""Checkpoints: what a run needs to continue after an interruption."""

import itertools
import json
import logging
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from safetensors.torch import load_file
from torch import Tensor

from potstill.errors import UserError
from potstill.files import (
    MANIFEST,
    atomic_folder,
    read_json,
    remove_leftovers,
    write_json,
    write_tensors,
)
from potstill.manifest import find_damage
from potstill.ops.parameters import copy_tensors
from potstill.parsing import parse_json
from potstill.training.distributed import largest_of_processes, process
from potstill.training.finite import DivergedError
from potstill.training.history import TrainResult
from potstill.training.interruption import Interruption

TENSORS = "state.safetensors"
SAVE, SAVE_AND_END = 1, 2
STEPS_BETWEEN_QUESTIONS = 8  # to the other processes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EpochProgress:
    """How far an epoch is.

    Attributes:
        steps: Steps taken.
        seconds: That they took, in all processes that had a part in them.
        results: What each returned: tuples of tensors with a row per item.
        random_states: Of each process that took them, the states of its random numbers.
    """

    steps: int = 0
    seconds: float = 0.0
    results: list[tuple[Tensor, ...]] = field(default_factory=list)
    random_states: list[dict[str, Tensor]] = field(default_factory=list)

    def columns(self) -> list[Tensor]:
        """Return the results as one tensor for each item of the tuples, on the CPU."""
        return [_join(column) for column in zip(*self.results, strict=True)]

    def gathered(self) -> "EpochProgress":
        """Return it with the results of all processes, which all have to call this."""
        if process().num_processes == 1:
            return self
        parts = gather_object([self.columns()])
        return replace(self, results=[tuple(columns) for columns in parts if columns])

    def restore_random_numbers(self) -> None:
        """Set this process's random numbers as they were; with another number of processes than
        there were, those of one of them."""
        states = self.random_states[process().process_index % len(self.random_states)]
        torch.set_rng_state(states["cpu"])
        if "cuda" in states and torch.cuda.is_available():
            torch.cuda.set_rng_state(states["cuda"])


def _join(tensors: Iterable[Tensor]) -> Tensor:
    """Return tensors as one on the CPU, copied from a GPU at once: of thousands of small ones each
    would be waited for. Those that were saved are on the CPU already."""
    runs = itertools.groupby(tensors, key=lambda tensor: tensor.device)
    return torch.cat([torch.cat(list(run)).cpu() for _, run in runs])


def _random_states() -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if process().device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state()
    return states


class Checkpoint:
    """The state of an unfinished run, in a folder of its own.

    Args:
        folder: Where it is.
        settings: Everything that determines the outcome; a run continues only with the very same.
        stage: Of a run with several; the folder holds the checkpoint of one.
        minutes: Between two savings.
        together: Whether all processes take part; else the first does alone.
    """

    def __init__(
        self,
        folder: Path,
        settings: dict[str, Any],
        stage: str = "state",
        *,
        minutes: float = 5.0,
        together: bool = True,
    ):
        self.folder, self.settings, self.minutes = folder, settings, minutes
        self.file = folder / f"{stage}.json"
        self.interruption = Interruption()
        self._together = together and process().num_processes > 1
        self._saved_at = time.monotonic()

    def exists(self) -> bool:
        """Return whether there is a state of this stage, be it damaged.

        Raises:
            UserError: It can't be told, as the manifest is damaged.
        """
        if self.file.is_file() or not (self.folder / MANIFEST).is_file():
            return self.file.is_file()
        try:
            return self.file.name in parse_json((self.folder / MANIFEST).read_bytes())["files"]
        except (KeyError, TypeError, ValueError) as error:
            raise self._damaged(f"{MANIFEST} is damaged") from error

    def wait_for_everyone(self) -> None:
        """Wait for the processes that take part."""
        if self._together:
            process().wait_for_everyone()

    def save(
        self,
        result: TrainResult,
        trainable: dict[str, Tensor],
        optimizer: Any,
        progress: EpochProgress | None = None,
    ) -> None:
        """Write the checkpoint, whole or not at all; every process calls this, the first writes.

        Args:
            result: Of the epochs so far.
            trainable: The tensors of now.
            optimizer: The optimizer.
            progress: How far the epoch is that has begun, if one has.

        Raises:
            DivergedError: A tensor is not finite; the earlier checkpoint stays.
        """
        if not all(bool(value.isfinite().all()) for value in trainable.values()):
            raise DivergedError(len(result.history) + (progress is not None))
        random_states = [_random_states()] if progress else []
        if self._together:
            random_states = gather_object(random_states)
        self._saved_at = time.monotonic()
        if not process().is_main_process:
            return
        tensors = {f"best.{name}": value for name, value in result.tensors.items()}
        tensors |= {f"now.{name}": value.detach() for name, value in trainable.items()}
        for i, values in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{key}": value for key, value in values.items()}
        state: dict[str, Any] = {"settings": self.settings, "records": result.history}
        if progress:
            state |= {"steps": progress.steps, "seconds": progress.seconds}
            columns = enumerate(progress.columns())
            tensors |= {f"results.{i}": column for i, column in columns}
            for rank, states in enumerate(random_states):
                tensors |= {f"random.{rank}.{name}": value for name, value in states.items()}
        with atomic_folder(self.folder) as staging:
            write_tensors(staging / TENSORS, tensors)
            write_json(staging / self.file.name, state)

    def after_step(
        self,
        result: TrainResult,
        trainable: dict[str, Tensor],
        optimizer: Any,
        progress: EpochProgress,
        *,
        gather: bool = False,
    ) -> None:
        """Save if it is time, or if a signal asks the run to end; then end it.

        Args:
            gather: Whether each process has results of its own.

        Raises:
            KeyboardInterrupt: A signal asked for it.
        """
        flag = self._due(progress.steps)
        if flag:
            progress = progress.gathered() if gather else progress
            self.save(result, trainable, optimizer, progress)
        if flag == SAVE_AND_END:
            self.interruption.end()

    def end_if_asked(self) -> None:
        """End the run, whose state is saved, if a signal asks for it.

        Raises:
            KeyboardInterrupt: A signal asked for it.
        """
        if self._due(0) == SAVE_AND_END:
            self.interruption.end()

    def _due(self, steps: int) -> int:
        flag = 0
        if time.monotonic() - self._saved_at >= 60 * self.minutes:
            flag = SAVE
        if self.interruption.signal is not None:
            flag = SAVE_AND_END
        if not self._together:
            return flag
        # Asking costs a message to and fro, so not after every step.
        return 0 if steps % STEPS_BETWEEN_QUESTIONS else largest_of_processes(flag)

    def load(
        self, trainable: dict[str, Tensor], optimizer: Any
    ) -> tuple[TrainResult, EpochProgress]:
        """Restore `trainable` and the optimizer in place.

        Returns:
            The result so far, and how far the epoch after it is.

        Raises:
            UserError: There is no checkpoint, it is damaged, or one of a run with other settings.
        """
        if not self.exists():
            raise UserError(f"there is no unfinished run in {self.folder}.")
        if damage := find_damage(self.folder):
            raise self._damaged(damage)
        try:
            state = read_json(self.file)
            self._check_settings(state["settings"])
            if not all(isinstance(record, dict) for record in state["records"]):
                raise ValueError("its records are none")
            tensors = load_file(self.folder / TENSORS)
            result = TrainResult(list(state["records"]), _with_prefix(tensors, "best."))
            progress = _progress(state, tensors)
            copy_tensors(_with_prefix(tensors, "now."), trainable)
            moments: dict[int, dict[str, Tensor]] = {}
            for key, value in _with_prefix(tensors, "optimizer.").items():
                i, name = key.split(".")
                moments.setdefault(int(i), {})[name] = value
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": moments, "param_groups": groups})
        except UserError:
            raise
        except Exception as error:  # safetensors raises its own, torch RuntimeError
            reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
            raise self._damaged(f"{self.file.name} or {TENSORS}: {reason}") from error
        epoch = len(result.history)
        logger.info(
            f"continues the unfinished run in {self.folder}: "
            + (f"epoch {epoch + 1}, after step {progress.steps}" * (progress.steps > 0))
            + (f"after epoch {epoch}" * (progress.steps == 0))
        )
        return result, progress

    def _damaged(self, damage: str) -> UserError:
        return UserError(
            f"the unfinished run in {self.folder} is damaged ({damage}); start anew with `fresh`."
        )

    def _check_settings(self, stored: dict[str, Any]) -> None:
        # Through JSON and back, as the stored ones went: tuples become lists.
        settings = json.loads(json.dumps(self.settings))
        for key in sorted(stored.keys() | settings.keys()):
            old, new = stored.get(key), settings.get(key)
            if old != new:
                raise UserError(
                    f"the unfinished run in {self.folder} had {key} {old}, not {new}; repeat its "
                    "settings to continue it, or start anew with `fresh`."
                )

    def remove(self) -> None:
        remove_leftovers(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)


def _progress(state: dict[str, Any], tensors: dict[str, Tensor]) -> EpochProgress:
    columns = _with_prefix(tensors, "results.")
    results = [tuple(columns[str(i)] for i in range(len(columns)))] if columns else []
    random_states: dict[int, dict[str, Tensor]] = {}
    for key, value in _with_prefix(tensors, "random.").items():
        rank, name = key.split(".")
        random_states.setdefault(int(rank), {})[name] = value
    in_order = [random_states[rank] for rank in sorted(random_states)]
    return EpochProgress(state.get("steps", 0), state.get("seconds", 0.0), results, in_order)


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
