"""What config.json says of every run."""

import importlib.metadata
import platform
from dataclasses import asdict
from typing import Any

import torch

from potstill import __version__
from potstill.data.corpus import Corpus
from potstill.ops import kernels

LIBRARIES = ("torch", "transformers", "tokenizers", "accelerate", "numpy")


def describe_run(command: str, seed: int, corpus: Corpus, settings: list[Any]) -> dict[str, Any]:
    """Return what config.json says of every run: its settings, data, versions and machine."""
    flat: dict[str, Any] = {}
    for group in settings:
        flat |= asdict(group)
    versions = {"potstill": __version__, "python": platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in LIBRARIES}
    return {
        "command": command,
        "SR": seed,
        "labels": list(corpus.labels),
        "max_length": flat["max_length"],
        "settings": flat,
        "data": corpus.describe(),
        "versions": versions,
        "machine": {
            "system": platform.platform(),
            "threads": torch.get_num_threads(),
            "compiled_kernels": kernels.load_library() is not None,
        },
    }
