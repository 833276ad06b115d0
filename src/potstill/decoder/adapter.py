"""Adapters on disk, in PEFT's layout: save, load, check, average."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from potstill.decoder.classifier import Classifier
from potstill.decoder.lora import add_lora, linear_names, lora_layers
from potstill.errors import UserError
from potstill.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, read_json, write_json, write_tensors
from potstill.ops.parameters import copy_tensors

# PEFT's options that change what an adapter computes and that LoRALinear does not implement.
UNSUPPORTED_PEFT_OPTIONS = (
    "use_dora",
    "use_rslora",
    "use_qalora",
    "use_bdlora",
    "rank_pattern",
    "alpha_pattern",
    "layer_replication",
    "alora_invocation_tokens",
    "arrow_config",
)
# Initialisations that leave the base unchanged; others (pissa, olora, loftq …) subtract from it.
SUPPORTED_INITS = (True, False, None, "gaussian", "eva", "orthogonal")
# What potstill reads of its configuration.
PEFT_VALUES: dict[str, Any] = {"r": int, "lora_alpha": int | float, "lora_dropout": int | float}
PEFT_VALUES |= {"modules_to_save": list, "base_model_name_or_path": str}
PEFT_PREFIX = "base_model.model."  # of the name of every tensor in an adapter file
# LoRALinear's factors, and what PEFT calls them.
PEFT_NAMES = {".U": ".lora_A.weight", ".V": ".lora_B.weight"}


def save_adapter(model: Classifier, folder: Path, base_name: str) -> None:
    """Write the trained tensors into `folder`, in PEFT's layout.

    Args:
        model: the classifier.
        folder: an existing folder.
        base_name: recorded as the base; what `from_pretrained` can load it from.
    """
    layers = dict(lora_layers(model.base))
    first = next(iter(layers.values()))
    prefix = f"{model.base.base_model_prefix}."
    tensors = {"score.weight": model.score.weight}
    saved_whole = {"score"}
    for name, layer in layers.items():
        tensors[_peft_name(f"{prefix}{name}.U")] = layer.U
        tensors[_peft_name(f"{prefix}{name}.V")] = layer.V
    for name, parameter in model.base.named_parameters():
        if parameter.requires_grad and not name.endswith(tuple(PEFT_NAMES)):
            tensors[prefix + name] = parameter
            saved_whole.add(name.rsplit(".", 2)[-2])
    write_adapter_weights(folder, tensors)
    write_json(
        folder / ADAPTER_CONFIG,
        {
            "base_model_name_or_path": base_name,
            "bias": "none",
            "fan_in_fan_out": isinstance(first.base, Conv1D),
            "inference_mode": True,
            "init_lora_weights": True,
            "lora_alpha": first.alpha,
            "lora_dropout": getattr(first.dropout, "p", 0.0),
            "modules_to_save": sorted(saved_whole),
            "peft_type": "LORA",
            "r": first.rank,
            "revision": None,
            "target_modules": sorted({name.rsplit(".", 1)[-1] for name in layers}),
            "task_type": "SEQ_CLS",
        },
    )


def load_adapter(base: Any, folder: Path) -> Classifier:
    """Return the classifier made of `base` and a saved adapter, ours or PEFT's, in evaluation mode.

    Args:
        base: a decoder of transformers without vocabulary head; changed in place.
        folder: the folder of the adapter.

    Raises:
        UserError: there is no adapter, it is no LoRA classifier, or it is of another base.
    """
    if not (folder / ADAPTER_CONFIG).is_file():
        raise UserError(f"{folder} holds no adapter ({ADAPTER_CONFIG} is missing).")
    config = read_json(folder / ADAPTER_CONFIG)
    if not isinstance(config, dict) or not {"r", "lora_alpha", "peft_type"} <= config.keys():
        raise UserError(
            f"{folder / ADAPTER_CONFIG} is damaged: it names no r, lora_alpha, peft_type."
        )
    if config["peft_type"] != "LORA":
        raise UserError(f"{folder} is a {config['peft_type']} adapter; only LORA can be read.")
    for key in UNSUPPORTED_PEFT_OPTIONS:
        if config.get(key):
            raise UserError(f"{folder}/{ADAPTER_CONFIG}: {key} is not supported.")
    if config.get("init_lora_weights", True) not in SUPPORTED_INITS:
        raise UserError(
            f"{folder}/{ADAPTER_CONFIG}: init_lora_weights {config['init_lora_weights']!r} changes "
            "the base, which is not supported."
        )
    for key, expected in PEFT_VALUES.items():
        value = config.get(key)
        wanted = key in ("r", "lora_alpha")
        if (value is not None or wanted) and (
            type(value) is bool or not isinstance(value, expected)
        ):
            raise UserError(f"{folder / ADAPTER_CONFIG} is damaged: {key} is {value!r}.")
    saved_whole = tuple(config.get("modules_to_save") or ())
    dropout = config.get("lora_dropout") or 0.0
    if not all(isinstance(name, str) for name in saved_whole) or not 0 <= dropout < 1:
        raise UserError(f"{folder / ADAPTER_CONFIG} is damaged: modules_to_save or lora_dropout.")
    tensors = read_adapter_weights(folder)
    prefix = f"{base.base_model_prefix}."
    if "score.weight" not in tensors:
        raise UserError(
            f"{folder}/{ADAPTER_WEIGHTS} has no head (score.weight); it is not a classifier."
        )
    names = [
        key.removeprefix(prefix).removesuffix(".lora_A.weight")
        for key in tensors
        if key.endswith(".lora_A.weight")
    ]
    foreign = sorted(set(names) - set(linear_names(base)))
    if foreign:
        raise UserError(
            f"{folder} adapts {foreign[0]}, which this base does not have; "
            "name the right base with `gpt_variant`."
        )
    for name, U in tensors.items():  # before memory is taken for so many
        if name.endswith(".lora_A.weight") and [*U.shape[:1]] != [config["r"]]:
            raise UserError(f"{folder}: r is {config['r']}, but {name} is {tuple(U.shape)}.")
    model = Classifier(base, tensors["score.weight"].shape[0])
    add_lora(
        base,
        names,
        rank=config["r"],
        alpha=config["lora_alpha"],
        dropout=dropout,
    )
    # Matched like PEFT does; all tensors of these modules must be in the file, and are saved again.
    for name, module in base.named_modules():
        if name and name.endswith(saved_whole):
            module.requires_grad_(True)
    load_adapter_weights(model, folder, tensors)
    return model.eval()


def write_adapter_weights(folder: Path, tensors: dict[str, Any]) -> None:
    """Write an adapter file from tensors named as `read_adapter_weights` names them."""
    prefixed = {PEFT_PREFIX + name: value for name, value in tensors.items()}
    write_tensors(folder / ADAPTER_WEIGHTS, prefixed)


def read_adapter_weights(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of an adapter file, named without PEFT's outer prefix.

    Raises:
        UserError: the file can't be read.
    """
    try:
        tensors = load_file(folder / ADAPTER_WEIGHTS)
    except Exception as error:  # safetensors raises its own, OSError and ValueError
        raise UserError(f"{folder / ADAPTER_WEIGHTS} can't be read: {error}.") from error
    return {key.removeprefix(PEFT_PREFIX): value for key, value in tensors.items()}


def load_adapter_weights(
    model: Classifier, folder: Path, tensors: dict[str, Tensor] | None = None
) -> None:
    """Copy every tensor of an adapter file into the parameter of `model` that it belongs to.

    Args:
        model: the classifier, changed in place.
        folder: the folder of the adapter.
        tensors: the tensors of its file, if they have been read.

    Raises:
        UserError: a tensor fits no parameter, or a trainable parameter has no tensor.
    """
    tensors = read_adapter_weights(folder) if tensors is None else tensors
    prefix = f"{model.base.base_model_prefix}."
    parameters = {_peft_name(prefix + n): p for n, p in model.base.named_parameters()}
    parameters["score.weight"] = model.score.weight
    for name, value in tensors.items():
        if name not in parameters:
            raise UserError(
                f"{folder} has {name}, which this base does not have; "
                "name the right base with `gpt_variant`."
            )
        if parameters[name].shape != value.shape:
            raise UserError(
                f"{folder}: {name} is {tuple(value.shape)} where this base needs "
                f"{tuple(parameters[name].shape)}; name the right base with `gpt_variant`."
            )
    missing = [n for n, p in parameters.items() if p.requires_grad and n not in tensors]
    if missing:
        raise UserError(f"{folder}/{ADAPTER_WEIGHTS} lacks {missing[0]}; the file is incomplete.")
    copy_tensors(tensors, {name: parameters[name] for name in tensors})


def _peft_name(name: str) -> str:
    """Return PEFT's name of a parameter: U is lora_A.weight and V is lora_B.weight."""
    stem, suffix = name[:-2], name[-2:]
    return stem + PEFT_NAMES[suffix] if suffix in PEFT_NAMES else name


def mean_of_adapters(weights: list[dict[str, Tensor]], scalings: list[float]) -> dict[str, Tensor]:
    """Return one adapter whose updates are exactly the mean of the given adapters' updates.

    Σ s_i V_i U_i / n is one product V U, with all U_i stacked and all s_i V_i / n side by side: the
    ranks add up, and the scaling of V U is 1. Heads and norms are averaged.

    Args:
        weights: the tensors of each adapter.
        scalings: alpha / rank of each adapter.
    """
    mean = {}
    for name in weights[0]:
        parts = [tensors[name] for tensors in weights]
        if name.endswith(".lora_A.weight"):
            mean[name] = torch.cat(parts)
        elif name.endswith(".lora_B.weight"):
            scaled = [s / len(parts) * part for s, part in zip(scalings, parts, strict=True)]
            mean[name] = torch.cat(scaled, dim=1)
        else:
            mean[name] = torch.stack(parts).mean(0)
    return mean


def common_rank(tensors: dict[str, Tensor]) -> int:
    """Return the rank of an averaged adapter.

    Raises:
        UserError: the rank is more than a layer can have.
    """
    rank = 0
    for name, V in tensors.items():
        if not name.endswith(".lora_B.weight"):
            continue
        layer = name.removesuffix(".lora_B.weight")
        rank = V.shape[1]
        max_rank = min(V.shape[0], tensors[f"{layer}.lora_A.weight"].shape[1])
        if rank > max_rank:
            raise UserError(
                f"the adapters' ranks add up to {rank}, more than the {max_rank} that {layer} can "
                "have; average fewer."
            )
    return rank


def teacher_hash(
    base_sha256: str, adapter_weights: Path, max_length: int, start_token: int | None
) -> str:
    """Return a hash of all that a teacher's logits depend on.

    Args:
        base_sha256: hash of the weights of its base.
        adapter_weights: its adapter file.
        max_length: sentences are cut at this many tokens.
        start_token: the token put before each sentence, or None.
    """
    adapter = hashlib.sha256(adapter_weights.read_bytes()).hexdigest()
    return hashlib.sha256(
        f"{base_sha256} {adapter} {max_length} {start_token}".encode()
    ).hexdigest()
