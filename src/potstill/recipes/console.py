"""What the commands print: lines, and a progress bar.

It is among the recipes, as these print tables; libraries log instead, and take a `Progress`.
"""

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from potstill.recipes.notebook import Rate, in_notebook, notebook_bar

logger = logging.getLogger(__name__)
# Of several processes only the first prints.
# Emoji codes such as :heart: stay as they are: they are somebody's labels, names and texts.
console = Console(
    highlight=False, soft_wrap=True, emoji=False, quiet=os.environ.get("RANK", "0") != "0"
)
# Control characters could move the cursor or change the terminal's state; line ends may stay.
# Those of Latin-1 (U+0080 to U+009F) do so, too, and JSON does not escape them.
CONTROLS = {i: f"\\x{i:02x}" for i in (*range(32), *range(0x7F, 0xA0)) if chr(i) not in "\n\t"}
JSON_CONTROLS = {i: f"\\u{i:04x}" for i in range(0x7F, 0xA0)}


def echo(text: str = "") -> None:
    """Print a line as it is, without markup."""
    console.print(printable(text), markup=False)


def printable(text: str) -> str:
    """Return `text` with its control characters written out, as in \\x1b."""
    return text.translate(CONTROLS)


def note(text: str) -> None:
    """Print a line to standard error, as it is."""
    print(printable(text), file=sys.stderr)


class Shown:
    """A stream, of which a terminal gets control characters written out; a pipe or a file gets
    texts as they are."""

    def __init__(self, stream: TextIO):
        self.stream, self._terminal = stream, stream.isatty()

    def write(self, text: str) -> int:
        return self.stream.write(printable(text) if self._terminal else text)

    def flush(self) -> None:
        self.stream.flush()


def as_is(text: str) -> Text:
    """Return `text` for a cell or a title, without markup."""
    return Text(printable(text))


def choice_line(what: str, title: str, reason: str = "") -> str:
    """Return the line that says what was chosen, and why if the user did not name it."""
    return f"{what}: {title}" + (f" (auto: {reason})" if reason else "")


def log_choice(what: str, title: str, reason: str = "") -> None:
    logger.info(choice_line(what, title, reason))


def log_truncated(cut: int, max_length: int, split: str) -> None:
    """Log in training how many sentences of a split are cut, if any."""
    if cut:
        sentences = "1 sentence" if cut == 1 else f"{cut} sentences"
        verb = "is" if cut == 1 else "are"
        logger.info(f"{sentences} of {split} {verb} truncated to `max_length` {max_length} tokens")


def truncated_line(cut: int, total: int, max_length: int) -> str:
    """Return the line that says of how many sentences a trained model does not read the end."""
    return f"{cut} of {total} cut: the model reads the first {max_length} tokens of a sentence"


def to_json(value: object) -> str:
    """Return `value` as one line of JSON that standard output can write, whatever its encoding."""
    encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "")
    return json.dumps(value, ensure_ascii=encoding != "utf8").translate(JSON_CONTROLS)


def format_count(parameters: int) -> str:
    """Write 125031168 as 125.03M."""
    if parameters >= 10_000:
        return f"{parameters / 1e6:.2f}M"
    return str(parameters)


def parameter_line(total: int, trainable: int) -> str:
    return (
        f"parameters: {format_count(total)} in total, {format_count(trainable)} trainable "
        f"({100 * (1 - trainable / total):.1f} % fewer)"
    )


@contextmanager
def stream_progress(size: int | None, *, hidden: bool) -> Iterator[Callable[[int, int], None]]:
    """Show on standard error, if that is a terminal, how much of a source has been read.

    Args:
        size: Of the source, in any unit; None if it is not known.
        hidden: Show nothing, as what is read goes to the same terminal.

    Yields:
        show(position, texts): what of `size` has been read, and the texts so far.
    """
    on_stderr = Console(stderr=True, emoji=False)
    columns = [BarColumn(), TextColumn("{task.fields[texts]} texts, {task.fields[rate]:.0f}/s")]
    if size is not None:
        columns += [TimeRemainingColumn(), TextColumn("left")]
    disable = hidden or not on_stderr.is_terminal
    rate = Rate()
    rate(0)
    with Progress(*columns, console=on_stderr, transient=True, disable=disable) as bar:
        task = bar.add_task("", total=size, texts=0, rate=0.0)

        def show(position: int, texts: int) -> None:
            bar.update(task, completed=position, texts=texts, rate=rate(texts))

        yield show


@contextmanager
def progress_bar(total: int) -> Iterator[Callable[[int, str], None]]:
    """Show a bar with the rate and the time left: on a terminal and in a notebook, nowhere else.

    Args:
        total: Sentences (or tokens) in all.

    Yields:
        show(done, description): how many are done so far, and what is being done.
    """
    if in_notebook():
        with notebook_bar(total) as show:
            yield show
        return
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[rate]:,.0f}/s,"),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    task = bar.add_task("", total=total, rate=0.0)
    rate = Rate()

    def show_on_terminal(done: int, description: str) -> None:
        bar.update(task, completed=done, description=description, rate=rate(done))

    with bar:
        yield show_on_terminal
