"""Compiling the C files of csrc/ once, into the cache folder, or else into a temporary one."""

import ctypes
import hashlib
import os
import shlex
import shutil
import stat
from pathlib import Path

from potstill.errors import UserError
from potstill.files import cache_folder, write_bytes

CSRC = Path(__file__).with_name("csrc")
SHARED = ["-shared", "-fPIC", "-fvisibility=hidden"]


def load_compiled(name: str, sources: list[Path], flags: list[str]) -> ctypes.CDLL | None:
    """Return the compiled functions of `sources`; None if they can't be compiled or stored.

    Args:
        name: Beginning of the name of the file in the cache folder.
        sources: C files, and the headers that they include.
        flags: The compiler's, apart from those of a shared library.
    """
    compiler = shlex.split(os.environ.get("CC", "")) or ["cc"]
    if shutil.which(compiler[0]) is None:
        return None
    command = [*compiler, *flags, *SHARED]
    code = b"".join(file.read_bytes() for file in sources)
    key = hashlib.sha256(code + " ".join(command).encode()).hexdigest()[:16]
    for folder in (cache_folder, _temporary_folder):
        try:
            file = folder() / f"{name}-{key}.so"
            if not file.is_file():
                _compile(command, sources, file)
            return ctypes.CDLL(str(file))
        except (OSError, UserError):  # a container's user may have no home folder
            continue
    return None


def _temporary_folder() -> Path:
    """Return this user's own folder among the temporary ones.

    Raises:
        OSError: It is someone else's, or others can write it: what they put there would be run.
    """
    import tempfile

    folder = Path(tempfile.gettempdir()) / f"potstill-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} is not this user's own")
    return folder


def _compile(command: list[str], sources: list[Path], file: Path) -> None:
    # Imported here, as what is compiled already needs neither.
    import subprocess
    import tempfile

    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder) / file.name
        files = [str(source) for source in sources if source.suffix == ".c"]
        call = [*command, *files, "-o", str(compiled), "-lm"]
        try:
            subprocess.run(call, check=True, capture_output=True, timeout=120)
        except subprocess.SubprocessError as error:
            raise OSError(str(error)) from error
        write_bytes(file, compiled.read_bytes())
