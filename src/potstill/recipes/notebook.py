"""A progress bar in a notebook, by IPython alone: rich's needs ipywidgets there."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

SECONDS = 0.2  # between two pictures of a bar


class Rate:
    """How much is done per second, from the first call on."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._first: int | None = None

    def __call__(self, done: int) -> float:
        """Return the rate when `done` are done."""
        # A resumed run starts in the middle: the rate counts from there.
        self._first = done if self._first is None else self._first
        return (done - self._first) / (time.perf_counter() - self._started)


def in_notebook() -> bool:
    """Return True in a notebook, where text can't be overwritten but HTML can be shown."""
    # Where it is not imported, this is none.
    ipython = sys.modules.get("IPython")
    return getattr(ipython and ipython.get_ipython(), "kernel", None) is not None


@contextmanager
def notebook_bar(total: int) -> Iterator[Callable[[int, str], None]]:
    """Show a bar in the output of the cell; like `progress_bar`."""
    from IPython.display import HTML, display

    handle: Any = display(HTML(""), display_id=True)
    rate, shown = Rate(), 0.0

    def show(done: int, description: str) -> None:
        nonlocal shown
        per_second, now = rate(done), time.perf_counter()
        if now - shown >= SECONDS:
            shown = now
            handle.update(HTML(bar_html(done, total, description, per_second)))

    try:
        yield show
    finally:
        handle.update(HTML(""))


def bar_html(done: int, total: int, description: str, rate: float) -> str:
    """Return the picture of a bar; `rate` is per second, 0 if it is not known yet."""
    left = ""
    if rate > 0:
        minutes, seconds = divmod(round(max(total - done, 0) / rate), 60)
        left = f", {minutes // 60}:{minutes % 60:02}:{seconds:02} left"
    return (
        f'{escape(description)} <progress value="{done}" max="{total}"></progress> '
        f"{rate:,.0f}/s{left}"
    )
