"""Which of how many processes this is, and the threads of one."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch
from accelerate import PartialState

Item = TypeVar("Item")
Result = TypeVar("Result")


def process() -> PartialState:
    """This process among all; alone unless a launcher started several.

    Accelerate must be told where there is no accelerator: it would let processes launched on CPUs
    each run by itself.
    """
    return PartialState(cpu=not torch.accelerator.is_available())


def side_by_side(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """`function` of every item, in as many threads as torch has for one operation, each alone.

    Of short sentences an operation takes microseconds; threads that share each one spend more time
    waiting for each other than threads that share the sentences.
    """
    threads = torch.get_num_threads()
    if threads == 1 or len(items) == 1:
        return [function(item) for item in items]
    return list(_pool(threads).map(function, items))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
