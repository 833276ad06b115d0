"""Training for so many minutes: fewer epochs, where there is no time for all."""

import logging
import time
from dataclasses import dataclass, field

from potstill.training.distributed import largest_of_processes, process
from potstill.training.history import EpochMetrics

logger = logging.getLogger(__name__)


@dataclass
class TimeLimit:
    """How many epochs there are to be in all, by how long those so far took.

    A machine that others share may become twice as slow or as fast within minutes, so that this is
    asked after every epoch. What an interrupted run decided is in its metrics.

    Args:
        minutes: For all epochs; None for no limit.
        planned: How many there are to be where there is time.
        history: The metrics of the epochs that are done.

    Attributes:
        cuts: After which epochs there were to be how many in all.
    """

    minutes: float | None
    planned: int
    history: list[EpochMetrics]
    cuts: list[tuple[int, int]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self._started = time.monotonic()
        self._before = sum(metrics["seconds"] for metrics in self.history)
        for metrics in self.history:
            self._set(metrics["epoch"], metrics.get("epochs", self.planned))

    @property
    def epochs(self) -> int:
        """How many there are to be in all."""
        return self.cuts[-1][1] if self.cuts else self.planned

    def look(self, epoch: int) -> dict[str, int]:
        """Decide how many there are to be, now that `epoch` is done; return what to keep of it."""
        if self.minutes is None:
            return {}
        seconds = self._before + time.monotonic() - self._started
        fit = epoch + round((60 * self.minutes - seconds) / (seconds / epoch))
        epochs = min(self.epochs, max(epoch, fit))
        if process().num_processes > 1:
            epochs = largest_of_processes(epochs)
        if epochs < self.epochs:
            logger.info(f"there is time for {epochs} of {self.epochs} epochs")
        self._set(epoch, epochs)
        return {"epochs": epochs}

    def _set(self, epoch: int, epochs: int) -> None:
        if epochs != self.epochs:
            self.cuts.append((epoch, epochs))
