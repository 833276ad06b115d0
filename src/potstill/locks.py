"""One writer for each folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from potstill.errors import UserError

try:
    import fcntl
except ModuleNotFoundError:  # Windows, where two writers are not told from one
    fcntl = None  # type: ignore[assignment]


@contextmanager
def exclusive(folder: Path, setting: str) -> Iterator[None]:
    """Be the only process that writes `folder` while the context lasts.

    The lock is on a file next to it, which holds this process's number. The system drops it when
    the process ends, however that happens.

    Args:
        setting: what the message calls the setting that names the folder.

    Raises:
        UserError: another process writes it.
    """
    file = folder.with_name(f".{folder.name}.lock")
    number = _lock(file, folder, setting)
    try:
        yield
    finally:
        if number is not None:
            file.unlink(missing_ok=True)  # before it is free, so that nobody locks a deleted file
            os.close(number)


def check_free(folder: Path, setting: str) -> None:
    """Raise UserError if another process writes `folder` now; found out before work begins."""
    if folder.with_name(f".{folder.name}.lock").exists():
        with exclusive(folder, setting):
            pass


def _lock(file: Path, folder: Path, setting: str) -> int | None:
    if fcntl is None:
        return None
    file.parent.mkdir(parents=True, exist_ok=True)
    while True:
        number = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            pid = os.read(number, 32).decode(errors="replace").strip()
            os.close(number)
            if not isinstance(error, BlockingIOError):
                return None  # a file system without locks
            raise UserError(
                f"{setting}: process {pid or 'of another user'} is writing {folder} now; wait "
                "until it has ended, or name another folder."
            ) from error
        try:
            same = os.fstat(number).st_ino == file.stat().st_ino
        except FileNotFoundError:
            same = False
        if same:
            os.ftruncate(number, 0)
            os.write(number, str(os.getpid()).encode())
            return number
        os.close(number)  # its holder has just removed it
