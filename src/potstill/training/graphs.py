"""Steps captured as CUDA graphs.

A step over short sentences is hundreds of small operations, and a GPU has finished each before the
next is launched. A CUDA graph launches all of them at once, for one shape of batch.
"""

import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GraphCapture:
    """A captured step: `replay` takes it on what is in `inputs` by then, and leaves the
    `result`."""

    inputs: list[Tensor]
    result: Tensor
    replay: Callable[[], None]


class StepGraphs:
    """Takes steps, and captures each kind of step when it comes for the second time. Before, and
    where capturing fails, its operations are launched one by one: what libraries prepare when they
    first see a shape can't be captured.

    A step must do the same operations whatever the numbers are, and read nothing but the GPU's
    memory.

    Attributes:
        seen: The kinds of steps that were taken.
        captures: Those of them that are captured.
        fails: True once a capture has failed.
    """

    def __init__(self, optimizer: Any, device: torch.device):
        self.optimizer, self.device = optimizer, device
        self.seen: set[Hashable] = set()
        self.captures: dict[Hashable, GraphCapture] = {}
        self.fails = False
        self._pool = torch.cuda.graph_pool_handle()  # shared: no step begins before the last ends
        for group in optimizer.param_groups:
            # Where the graphs will look for it.
            group["lr"] = torch.tensor(group["lr"], device=device)

    def take(self, kind: Hashable, inputs: Sequence[Tensor], step: Callable[..., Tensor]) -> Tensor:
        """Return `step(*inputs)`, on this device wherever the inputs are.

        kind: Tells apart steps of different operations or shapes.
        """
        if kind in self.seen and kind not in self.captures and not self.fails:
            self._capture(kind, inputs, step)
        self.seen.add(kind)
        if capture := self.captures.get(kind):
            for static, given in zip(capture.inputs, inputs, strict=True):
                # From the processor: else it would wait for the GPU.
                static.copy_(given, non_blocking=True)
            capture.replay()
            return capture.result.clone()  # the next replay overwrites it
        return step(*(given.to(self.device, copy=True) for given in inputs))

    def _capture(
        self, kind: Hashable, inputs: Sequence[Tensor], step: Callable[..., Tensor]
    ) -> None:
        static = [given.to(self.device, copy=True) for given in inputs]
        self._set_capturable(True)
        try:
            result, replay = capture_graph(lambda: step(*static), self._pool)
            self.captures[kind] = GraphCapture(static, result, replay)
        except RuntimeError as error:
            self.fails = True
            self.captures.clear()  # they have the random numbers of another generator
            self._set_capturable(False)
            self.optimizer.zero_grad(set_to_none=True)
            # Report the root cause; later errors only say that the capture failed.
            cause: BaseException = error
            while cause.__context__:
                cause = cause.__context__
            reason = str(cause).strip().partition("\n")[0]
            logger.warning(f"slower than it could be: CUDA graphs are not available ({reason})")

    def _set_capturable(self, capturable: bool) -> None:
        for group in self.optimizer.param_groups:
            group["capturable"] = capturable  # outside of captures PyTorch warns of it


def capture_graph(step: Callable[[], Tensor], pool: Any) -> tuple[Tensor, Callable[[], None]]:
    """Capture `step` as a CUDA graph, without computing anything.

    Returns:
        The tensor where the result will be, and what computes it.

    Raises:
        RuntimeError: It does what can't be captured.
    """
    graph = torch.cuda.CUDAGraph()
    generator = torch.cuda.default_generators[torch.cuda.current_device()]
    try:
        # A capture that fails would leave its stream the current one …
        with torch.cuda.stream(torch.cuda.current_stream()), torch.cuda.graph(graph, pool=pool):
            result = step()
    except RuntimeError:
        # … and the generator of random numbers in the belief that it is captured.
        generator.graphsafe_set_state(generator.clone_state())
        raise
    return result, graph.replay
