"""Compiling the C files of csrc/ once, into the cache folder."""

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

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
    file = cache_folder() / f"{name}-{key}.so"
    try:
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory() as folder:
                compiled = Path(folder) / file.name
                files = [str(source) for source in sources if source.suffix == ".c"]
                call = [*command, *files, "-o", str(compiled), "-lm"]
                subprocess.run(call, check=True, capture_output=True, timeout=120)
                write_bytes(file, compiled.read_bytes())
        return ctypes.CDLL(str(file))
    except (OSError, subprocess.SubprocessError):
        return None
