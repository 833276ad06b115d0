"""Files of a run: their names, and writing them completely or not at all.

Nothing heavy is imported here, as `predict` needs it where there is no torch.
"""

import contextlib
import ctypes
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.errors import UserError
from potstill.parsing import parse_json

if TYPE_CHECKING:
    from torch import Tensor

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
STUDENT_WEIGHTS = "model.safetensors"
STUDENT_TOKENIZER = "tokenizer.json"
STUDENT_ONNX = "model.onnx"
RESULTS, MANIFEST, REPORT = "results.json", "manifest.json", "report.html"
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux's renameat2


def cache_folder() -> Path:
    """Return the folder of converted decoders, cached logits and compiled kernels.

    It is $POTSTILL_CACHE if set, else potstill in $XDG_CACHE_HOME or ~/.cache.

    Raises:
        UserError: The user has no home folder.
    """
    if named := os.environ.get("POTSTILL_CACHE"):
        return Path(named)
    if user_cache := os.environ.get("XDG_CACHE_HOME"):
        return Path(user_cache) / "potstill"
    try:
        return Path.home() / ".cache" / "potstill"
    except RuntimeError as error:
        raise UserError("the user has no home folder; name a folder by POTSTILL_CACHE.") from error


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder to write into, which becomes `folder` when the context ends.

    It gets a manifest. An existing `folder` is replaced only then; after an error nothing is left
    behind, and after a kill only what the next one of the same name removes.
    """
    staging = _staging_path(folder)
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        yield staging
        write_manifest(staging)
        if not folder.exists():
            staging.rename(folder)
        elif not _exchange(staging, folder):
            old = staging.with_suffix(".old")
            folder.rename(old)
            try:
                staging.rename(folder)
            except OSError:
                old.rename(folder)
                raise
            shutil.rmtree(old, ignore_errors=True)
        _sync(folder.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)  # after the exchange, what was there before


@contextmanager
def atomic_file(file: Path) -> Iterator[Path]:
    """Yield a temporary file to write, which becomes `file` when the context ends without error."""
    staging = _staging_path(file)
    try:
        yield staging
        _sync(staging)  # else the name could reach the disk before the content
        staging.replace(file)
        _sync(file.parent)
    finally:
        staging.unlink(missing_ok=True)


def write_bytes(file: Path, body: bytes) -> None:
    """Write a file atomically: completely or not at all."""
    with atomic_file(file) as staging:
        staging.write_bytes(body)


def _staging_path(path: Path) -> Path:
    """Return where this process prepares `path`, after removing what killed ones have left."""
    remove_leftovers(path)
    return path.with_name(f".{path.name}.{os.getpid()}.new")


def remove_leftovers(path: Path) -> None:
    """Remove what processes that were killed while they wrote `path` have left next to it."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        pid, _, kind = left.name.removeprefix(f".{path.name}.").partition(".")
        if kind not in ("new", "old") or not pid.isdigit():
            continue
        if int(pid) != os.getpid() and process_exists(int(pid)):
            continue
        if kind == "old" and not path.exists():
            left.rename(path)  # killed between two renames
        elif left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def process_exists(pid: int) -> bool:
    """Return whether a process of this number runs on this machine."""
    try:
        os.kill(pid, 0)
    except OSError as error:  # one of somebody else's must not be signalled
        return not isinstance(error, ProcessLookupError)
    return True


def _exchange(first: Path, second: Path) -> bool:
    """Swap two folders in one system call; return False where there is none for it."""
    try:
        rename = ctypes.CDLL(None).renameat2  # Linux
    except (AttributeError, OSError, TypeError):
        return False
    return not rename(AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second), RENAME_EXCHANGE)


def _sync(path: Path) -> None:
    """Wait until a file or a folder's list of files is on the disk, where the system can."""
    with contextlib.suppress(OSError):  # some file systems have no such operation for folders
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def write_manifest(folder: Path) -> None:
    """Write `manifest.json`: size and SHA-256 of every other file of `folder`.

    It is written last, so that a folder with a manifest is complete.
    """
    files = (f for f in sorted(folder.rglob("*")) if f.is_file() and f != folder / MANIFEST)
    listed = {file.relative_to(folder).as_posix(): _listed(file) for file in files}
    write_json(folder / MANIFEST, {"files": listed})


@contextmanager
def amended_manifest(folder: Path, names: Collection[str], *, unlisted: bool) -> Iterator[None]:
    """Write some files of a folder in this context, and list them in its manifest.

    Args:
        unlisted: Whether they are not listed meanwhile. Where one of them is read, a reader then
            takes it as it is, the earlier or the new one; where several are, which belong together,
            they should stay listed as they were, so that a reader names one that is new already.
    """
    file = folder / MANIFEST
    files = read_json(file)["files"] if file.is_file() else {}
    if unlisted and file.is_file():
        write_json(file, {"files": {k: v for k, v in files.items() if k not in names}})
    yield
    files |= {name: _listed(folder / name) for name in names}
    write_json(file, {"files": dict(sorted(files.items()))})


def _listed(file: Path) -> dict[str, Any]:
    _sync(file)
    return {"bytes": file.stat().st_size, "sha256": sha256_of(file)}


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with file.open("rb") as body:
        return hashlib.file_digest(body, "sha256").hexdigest()


def write_text(file: Path, text: str) -> None:
    """Write a UTF-8 file atomically."""
    write_bytes(file, text.encode())


def write_json(file: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically.

    Raises:
        ValueError: It holds a number that isn't finite, which JSON doesn't have.
    """
    write_text(file, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_tensors(file: Path, tensors: "dict[str, Tensor]") -> None:
    """Write a safetensors file atomically, with the permissions that the folder gives files.

    `save_file` of safetensors makes files that only their owner can read.
    """
    from safetensors.torch import save

    on_cpu = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    write_bytes(file, save(on_cpu, metadata={"format": "pt"}))


def read_json(file: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        return parse_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{file.parent} holds no {file.name}.") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{file} can't be read: {error}.") from error


def read_results(folder: Path) -> dict[str, Any]:
    """Return the results.json of a run; empty where there is none, as in an exported student.

    Raises:
        UserError: it is damaged.
    """
    file = folder / RESULTS
    results = read_json(file) if file.is_file() else {}
    if not isinstance(results, dict):
        raise UserError(f"{file} can't be read: it holds no scores.")
    return results


def check_writable(folder: Path, setting: str) -> None:
    """Check that `folder` can be created and written, before work begins.

    Raises:
        UserError: It can't; the message calls what names it `setting`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # where there are such, a file without a name
            pass
    except OSError as error:
        raise UserError(
            f"{setting}: {folder} can't be written ({error.strerror}); name another folder."
        ) from error


def check_replaceable(folder: Path, flag: str) -> None:
    """Raise UserError if `folder` holds anything but a run."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{flag}: {folder} is a file; name a folder.")
    config = folder / "config.json"
    ours = config.is_file() and "potstill" in read_json(config).get("versions", {})
    if not ours and any(folder.iterdir()):
        raise UserError(f"{flag}: {folder} is not empty and not a run; name another folder.")
