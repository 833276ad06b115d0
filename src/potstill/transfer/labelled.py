"""The teacher's logits of a shard that is not finished.

Its sentences are drawn again after an interruption, from the same random numbers; labelling them is
most of the work, and that is kept.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from safetensors.torch import load_file

from potstill.files import write_tensors

logger = logging.getLogger(__name__)


class LabelledSoFar:
    """The logits of sentences of the shard that will be `path`, in a hidden file next to it.

    As a context it saves them where an exception ends it, as an interruption does.

    Args:
        minutes: Between two savings.
    """

    def __init__(self, path: Path, minutes: float):
        self.file = path.with_name(f".{path.stem}.labelled.safetensors")
        self.minutes = minutes
        self._logits: dict[str, np.ndarray] = {}
        self._saved_at = time.monotonic()

    def __enter__(self) -> "LabelledSoFar":
        if self.file.is_file():
            try:
                self._logits = _read(self.file)
            except Exception as error:  # safetensors raises its own
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                logger.warning(f"{self.file} is damaged ({reason}) and is not used")
            else:
                logger.info(f"goes on after {len(self._logits)} labelled sentences of {self.file}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind and self._logits:
            self.save()

    def label(
        self, sentences: list[str], label: Callable[[list[str]], list[np.ndarray]]
    ) -> list[np.ndarray]:
        """Return the (W, classes) logits of each sentence: those that are known, if all are, else
        what `label` returns."""
        if not all(sentence in self._logits for sentence in sentences):
            self._logits |= zip(sentences, label(sentences), strict=True)
            if time.monotonic() - self._saved_at >= 60 * self.minutes:
                self.save()
        return [self._logits[sentence] for sentence in sentences]

    def save(self) -> None:
        """Write the file, whole or not at all."""
        rows = list(self._logits.values())
        tensors = {
            "sentences": _as_bytes(json.dumps(list(self._logits)).encode()),
            "words": torch.tensor([len(row) for row in rows]),
            "logits": torch.from_numpy(np.concatenate(rows)),
        }
        write_tensors(self.file, tensors | {"sha256": _as_bytes(_digest(tensors))})
        self._saved_at = time.monotonic()

    def remove(self) -> None:
        self.file.unlink(missing_ok=True)


def _read(file: Path) -> dict[str, np.ndarray]:
    tensors = load_file(file)
    if _digest({k: v for k, v in tensors.items() if k != "sha256"}) != bytes(
        tensors["sha256"].tolist()
    ):
        raise ValueError("it is not what was written")
    sentences = json.loads(bytes(tensors["sentences"].tolist()))
    parts = tensors["logits"].split(tensors["words"].tolist())
    return dict(zip(sentences, (part.numpy() for part in parts), strict=True))


def _as_bytes(body: bytes) -> torch.Tensor:
    return torch.tensor(list(body), dtype=torch.uint8)


def _digest(tensors: dict[str, torch.Tensor]) -> bytes:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(tensors[name].contiguous().numpy().tobytes())
    return digest.digest()
