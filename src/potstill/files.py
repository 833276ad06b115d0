"""Files of a run: their names, and writing them completely or not at all.

Nothing heavy is imported here, as `predict` needs it where there is no torch.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potstill.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
STUDENT_WEIGHTS = "model.safetensors"
STUDENT_TOKENIZER = "tokenizer.json"
STUDENT_ONNX = "model.onnx"
RESULTS = "results.json"


def cache_folder() -> Path:
    """Return the folder of converted decoders, cached logits and compiled kernels.

    It is $POTSTILL_CACHE if set, else potstill in $XDG_CACHE_HOME or ~/.cache.
    """
    if named := os.environ.get("POTSTILL_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "potstill"


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder to write into, which becomes `folder` when the context ends.

    An existing `folder` is replaced only then; after an error nothing is left behind.
    """
    staging = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        yield staging
        old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
        if folder.exists():
            folder.rename(old)
        try:
            staging.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_bytes(file: Path, body: bytes) -> None:
    """Write a file atomically: completely or not at all."""
    staging = file.with_name(f".{file.name}.{os.getpid()}.new")
    try:
        staging.write_bytes(body)
        staging.replace(file)
    finally:
        staging.unlink(missing_ok=True)


def write_text(file: Path, text: str) -> None:
    """Write a UTF-8 file atomically."""
    write_bytes(file, text.encode())


def write_json(file: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_text(file, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


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
        return json.loads(file.read_text(encoding="utf-8"))
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

    Args:
        folder: the folder; it is created.
        setting: what the message calls the setting that names it.

    Raises:
        UserError: it can't.
    """
    probe = folder / f".potstill-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
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
