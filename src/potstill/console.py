"""What the program prints while it works: lines, and a progress bar."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

# Of several processes only the first speaks.
console = Console(highlight=False, soft_wrap=True, quiet=os.environ.get("RANK", "0") != "0")


def say(text: str = "") -> None:
    """Prints one line as it is."""
    console.print(text, markup=False)


def count(parameters: int) -> str:
    """125031168 as 125.03M."""
    if parameters >= 10_000:
        return f"{parameters / 1e6:.2f}M"
    return str(parameters)


def parameter_line(total: int, trainable: int) -> str:
    return (
        f"parameters: {count(total)} in all, {count(trainable)} trainable "
        f"({100 * (1 - trainable / total):.1f} % fewer)"
    )


@contextmanager
def progress_bar(sentences: int) -> Iterator[Callable[[int, str], None]]:
    """A bar with sentences a second and the time left; yields show(sentences done, what)."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[rate]:.0f} sentences/s,"),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    task = bar.add_task("", total=sentences, rate=0.0)
    started = time.perf_counter()
    first: list[int] = []

    def show(done: int, what: str) -> None:
        # A resumed run starts in the middle: the rate counts from there.
        first[:] = first or [done]
        rate = (done - first[0]) / (time.perf_counter() - started)
        bar.update(task, completed=done, description=what, rate=rate)

    with bar:
        yield show


def say_choice(what: str, title: str, reason: str = "") -> None:
    """What was chosen, and why where nobody named it."""
    say(f"{what}: {title}" + (f" (auto: {reason})" if reason else ""))
