"""The weights and the tokenizer that a student starts from instead of random numbers."""

import hashlib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from potstill.errors import UsageError, UserError
from potstill.files import (
    STUDENT_ONNX,
    STUDENT_TOKENIZER,
    STUDENT_WEIGHTS,
    read_json,
    write_json,
    write_tensors,
)
from potstill.manifest import check_manifest
from potstill.pretrained import BASE, COLA
from potstill.settings import NetworkSettings, StudentSettings
from potstill.student.io import expected_shapes
from potstill.student.model import DistilRNN, StudentConfig
from potstill.student.onnx_file import network_weights, read_onnx
from potstill.student.tokenizer import read_tokenizer

OF_CLASSES = ("score.", "word_score.")  # what a task begins afresh
IN_THE_PACKAGE = {"base": BASE, "cola": COLA}


@dataclass(frozen=True)
class Base:
    """What a student starts from.

    Attributes:
        folder: Where it is from.
        config: Its network, as config.json describes it.
        weights: Those of a DistilRNN but for the linear layers that score the classes; fp32.
        tokenizer: The student's.
        sha256: A hash over the files of weights and tokenizer.
    """

    folder: Path
    config: dict[str, Any]
    weights: dict[str, Tensor]
    tokenizer: Tokenizer
    sha256: str

    def describe(self) -> dict[str, str]:
        """Return what a run records of it."""
        return {"path": str(self.folder), "sha256": self.sha256}

    def misfit(self, settings: StudentSettings) -> str | None:
        """Return the first setting by which the network that `settings` ask for has another shape
        than this one's; None if there is none."""
        for field in fields(NetworkSettings):
            asked, own = getattr(settings, field.name), self.config[field.name]
            if field.name != "dropout" and asked != own:
                return field.name
        return None

    def check_network(self, settings: StudentSettings) -> None:
        """Raise a `UsageError` unless `settings` ask for a network of this one's shape."""
        if name := self.misfit(settings):
            raise UsageError(
                f"`{name}` is {getattr(settings, name)}, but the network in {self.folder}, from "
                f"which `init` starts, has {self.config[name]}; make them the same."
            )


def save_base(model: DistilRNN, tokenizer: Tokenizer, folder: Path, about: dict[str, Any]) -> None:
    """Write a base into `folder`, which `load_base` reads: the weights in fp16 without the layers
    that score classes, the tokenizer, and a config.json that also says what is in `about`."""
    weights = {k: v.half() for k, v in model.state_dict().items() if not k.startswith(OF_CLASSES)}
    write_tensors(folder / STUDENT_WEIGHTS, weights)
    tokenizer.save(str(folder / STUDENT_TOKENIZER))
    of_classes = ("classes", "word_head")
    network = {key: value for key, value in asdict(model.config).items() if key not in of_classes}
    sha256 = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in (STUDENT_WEIGHTS, STUDENT_TOKENIZER)
    }
    parameters = sum(tensor.numel() for tensor in weights.values())
    config = {"student": network, "parameters": parameters, "sha256": sha256} | about
    write_json(folder / "config.json", config)


def load_init(settings: StudentSettings) -> Base | None:
    """Return what a student of `settings` starts from; None for random weights.

    Raises:
        UserError: `init` names no base, its files are damaged or do not belong together, or its
            network has another shape than the settings.
    """
    if settings.init == "none":
        return None
    name = settings.init or "base"
    base = load_base(IN_THE_PACKAGE.get(name, Path(name)))
    if settings.init is None and base.misfit(settings):
        return None
    base.check_network(settings)
    return base


def load_base(folder: Path) -> Base:
    """Read a base, or a saved or exported student without the layers that score its classes.

    Raises:
        UserError: It is neither, it is damaged, or its files do not belong together.
    """
    if not folder.is_dir():
        raise UserError(
            f"`init` {folder}: there is no such folder; it takes none, base, cola, or the folder "
            "of a base or of a student."
        )
    exported = not (folder / STUDENT_WEIGHTS).is_file() and (folder / STUDENT_ONNX).is_file()
    file = STUDENT_ONNX if exported else STUDENT_WEIGHTS
    check_manifest(folder, ("config.json", file, STUDENT_TOKENIZER))
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else None
    if not isinstance(config, dict) or not isinstance(config.get("student"), dict):
        raise UserError(
            f"`init` {folder} holds neither a base nor a student (no config.json there describes "
            "one); name another folder."
        )
    for name in (file, STUDENT_TOKENIZER):
        if not (folder / name).is_file():
            raise UserError(f"`init` {folder} holds no {name}; restore it, or name another folder.")
    bodies = {name: (folder / name).read_bytes() for name in (STUDENT_TOKENIZER, file)}
    hashes = {name: hashlib.sha256(body).hexdigest() for name, body in bodies.items()}
    recorded = config.get("sha256")
    for name, sha256 in recorded.items() if isinstance(recorded, dict) else ():
        if hashes.get(name) != sha256:
            raise UserError(
                f"`init` {folder}: {name} is not the file that config.json has the hash of; "
                "restore it, or name another folder."
            )
    try:
        network = config["student"] | {"classes": 1, "word_head": False}
        student = StudentConfig(**network)
        weights = _exported(bodies[file], student) if exported else _saved(folder / file)
        expected = expected_shapes(student, len(weights), file)
        tokenizer = read_tokenizer(folder / STUDENT_TOKENIZER)
    except Exception as error:  # safetensors and tokenizers raise their own kinds
        reason = " ".join(str(error).split())
        raise UserError(
            f"`init` {folder} can't be read: {reason[:300]}; restore it, or name another folder."
        ) from error
    shapes = {k: shape for k, shape in expected.items() if not k.startswith(OF_CLASSES)}
    if shapes != {name: list(tensor.shape) for name, tensor in weights.items()}:
        raise UserError(
            f"`init` {folder}: {file} does not hold the network that config.json "
            "describes; restore it, or name another folder."
        )
    n_tokens = tokenizer.get_vocab_size()
    if n_tokens != network["vocab_size"]:
        raise UserError(
            f"`init` {folder}: {STUDENT_TOKENIZER} is another network's; it has {n_tokens} tokens, "
            f"the network {network['vocab_size']}."
        )
    digest = hashlib.sha256("".join(hashes.values()).encode()).hexdigest()
    return Base(folder, network, weights, tokenizer, digest)


def _saved(file: Path) -> dict[str, Tensor]:
    return {
        name: tensor.float()
        for name, tensor in load_file(file).items()
        if not name.startswith(OF_CLASSES)
    }


def _exported(body: bytes, config: StudentConfig) -> dict[str, Tensor]:
    arrays = network_weights(read_onnx(body).tensors, config.cell, config.layers)
    return {name: torch.tensor(array) for name, array in arrays.items()}
