"""The command line: which command, with which flags, and how it ends."""

import difflib
import errno
import inspect
import io
import logging
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path

import tyro

from potstill.cli import commands
from potstill.cli.options import ALIASES, OUTPUT, Adapters, LabelledData, Runs, Sentences, Serial
from potstill.errors import Terminated, UsageError, UserError, missing_extra
from potstill.recipes.console import echo, note

COMMANDS: dict[str, Callable[..., None]] = {
    "make": commands.make,
    "gen": commands.gen,
    "LoRA": commands.LoRA,
    "average": commands.average,
    "transfer": commands.transfer,
    "distil": commands.distil,
    "rnn": commands.rnn,
    "pretrain": commands.pretrain,
    "check": commands.check,
    "evaluate": commands.evaluate,
    "predict": commands.predict,
    "report": commands.report,
    "export": commands.export,
    "serve": commands.serve,
}
# What gloo and NCCL say, who have no class for it.
LOST_PROCESS = re.compile(r"[Cc]onnection (closed|reset|refused)|[Bb]roken pipe|remote process")
ALONE = ("gen", "predict", "check", "report", "export", "serve")
DESCRIPTION = """\
Turn a GPT into a tiny classifier: tune it with LoRA, distil it into DistilRNN.

A first look:
  {prog} gen 12345
  {prog} LoRA 12345
  {prog} distil 12345
  {prog} predict "The books is on the table."
"""


def main(prog: str = "potstill", args: list[str] | None = None) -> None:
    """Run one command; exit with code 0, 1 for an error, 2 for wrong usage, 130 if interrupted, 143
    if terminated."""
    args = sys.argv[1:] if args is None else args
    if not _has_part(args):
        return
    _print_log(args)
    _prepare_libraries()
    _prepare_streams()
    try:
        args = [_as_text(arg) for arg in args]
        with _sigterm_raises():
            _run(prog, args)
    except UserError as error:
        note(f"{prog}: {name_flags(str(error), args)}")
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except ModuleNotFoundError as error:
        message = missing_extra(error)
        if message is error:
            raise
        note(f"{prog}: {message}")
        sys.exit(1)
    except Terminated:
        print(f"\n{prog}: terminated.", file=sys.stderr)
        sys.exit(128 + signal.SIGTERM)
    except KeyboardInterrupt:
        print(f"\n{prog}: interrupted.", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        # The reader has closed the pipe, as `head` does.
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and LOST_PROCESS.search(str(error)):
            print(
                f"{prog}: another process has ended, and so does this one; the same command goes "
                "on from the last saved state.",
                file=sys.stderr,
            )
            sys.exit(1)
        # safetensors and SQLite have no class for it, only the words.
        if not any(words in str(error) for words in (os.strerror(errno.ENOSPC), "disk is full")):
            raise
        note(f"{prog}: the disk is full ({error}); make room and try again.")
        sys.exit(1)


def _has_part(args: list[str]) -> bool:
    """Return whether this process has a part in the command, if a launcher started several.

    Commands that several don't share are left to the first, as if it were alone.
    """
    first = os.environ.get("RANK", "0") == "0"
    if args and args[0] in ALONE:
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
            os.environ.pop(name, None)
        return first
    if not first:  # the first alone answers
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  # as long as the process
    return True


def _run(prog: str, args: list[str]) -> None:
    _check_command(args)
    tyro.extras.subcommand_cli_from_dict(
        COMMANDS,
        prog=prog,
        description=DESCRIPTION.format(prog=prog),
        args=args,
        use_underscores=True,
        config=(
            tyro.conf.OmitArgPrefixes,
            tyro.conf.CascadeSubcommandArgs,
            tyro.conf.DisallowNone,
        ),
    )
    sys.stdout.flush()


def name_flags(message: str, args: Sequence[str] = ()) -> str:
    """Write the settings that a library names by their field, such as `data`, as flags: --data.

    Args:
        message: What the library says.
        args: The command line. A flag that it spells by an alias is written so here too.
    """
    flags: dict[str, str] = {}
    for command in COMMANDS.values():
        flags |= _flags(command)
    flags["output"] = OUTPUT
    if args and args[0] in COMMANDS:
        flags |= _flags(COMMANDS[args[0]], {arg.partition("=")[0] for arg in args})
    return re.sub(r"`(\w+)`", lambda match: flags.get(match[1], match[0]), message)


def _flags(command: Callable[..., None], typed: Collection[str] = ()) -> dict[str, str]:
    """Return the flag of each field of a command, or its alias if that is among those `typed`."""
    flags: dict[str, str] = {}
    for name, parameter in inspect.signature(command).parameters.items():
        if is_dataclass(parameter.annotation):  # a group of settings
            flags |= {field.name: f"--{field.name}" for field in fields(parameter.annotation)}
        elif parameter.annotation == LabelledData:
            flags[name] = "DATA"
        elif parameter.annotation not in (Serial, Sentences, Adapters, Runs):
            alias = next((a for kind, a in ALIASES if kind == parameter.annotation), "")
            flags[name] = alias if alias and alias in typed else f"--{name}"
            if name == "model_path":  # its name in `potstill.load`
                flags["path"] = flags[name]
            if alias == OUTPUT:  # its name in the functions for Python
                flags["output"] = flags[name]
    return flags


class _PrintingHandler(logging.Handler):
    """Print what the libraries log like the commands' own lines."""

    def __init__(self, args: Sequence[str]):
        super().__init__()
        self.args = args

    def emit(self, record: logging.LogRecord) -> None:
        echo(name_flags(record.getMessage(), self.args))
        if record.exc_info:
            echo("".join(traceback.format_exception(*record.exc_info)).rstrip())


def _print_log(args: Sequence[str]) -> None:
    # Its warnings of a folder that it can't write are about none of ours.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    logger = logging.getLogger("potstill")
    logger.setLevel(logging.INFO)
    for handler in logger.handlers[:]:
        if isinstance(handler, _PrintingHandler):
            logger.removeHandler(handler)
    logger.addHandler(_PrintingHandler(args))


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Let SIGTERM raise an exception, as SIGINT does, so that nothing half done is left."""

    def terminate(number: int, frame: object) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _prepare_libraries() -> None:
    """Silence transformers' warnings and progress bars, and limit how long idle threads spin.

    The libraries read these variables when they are imported, which is later, if at all: an
    exported student needs none of them.
    """
    # libgomp reads it when torch is loaded. On shared cores, spinning took most of the time.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    os.environ.setdefault("TQDM_DISABLE", "1")  # not the Hub's bars: a download may take minutes
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # https://no-color.org; rich follows it by itself.
    tyro._experimental_options["ansi_codes"] = not os.environ.get("NO_COLOR")


def _prepare_streams() -> None:
    """Let output that its encoding has no characters for be escaped, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _as_text(arg: str) -> str:
    """Return an argument as Unicode text, also where the locale's encoding does not know it.

    Raises:
        UsageError: It is not UTF-8.
    """
    try:
        # Python smuggles bytes that it can't decode through as lone surrogates.
        return arg.encode(errors="surrogateescape").decode()
    except UnicodeError as error:
        raise UsageError(f"the argument {arg!a} is not UTF-8 text.") from error


def _check_command(args: list[str]) -> None:
    if not args:
        raise UsageError(f"name a command: {', '.join(COMMANDS)}; --help tells what each does.")
    if args[0].startswith("-") or args[0] in COMMANDS:
        return
    known = {name.lower(): name for name in COMMANDS}
    near = difflib.get_close_matches(args[0].lower(), known, n=1, cutoff=0.5)
    hint = f"; did you mean {known[near[0]]}?" if near else "."
    raise UsageError(f"there is no command {args[0]!r} among {', '.join(COMMANDS)}{hint}")
