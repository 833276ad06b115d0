"""What training has measured so far, and the epoch that is chosen."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

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
