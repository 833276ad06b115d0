"""Adapters on disk, in PEFT's layout: saved, loaded, checked, averaged."""

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

# Settings of PEFT's that change what an adapter computes and that LoRALinear does not know.
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
# Ways to begin that leave the base as it is; others (pissa, olora, loftq …) subtract from it.
SUPPORTED_INITS = (True, False, None, "gaussian", "eva", "orthogonal")
PEFT_PREFIX = "base_model.model."  # of every tensor in an adapter file


def save_adapter(model: Classifier, folder: Path, base_name: str) -> None:
    """Writes what was trained, in PEFT's layout, into `folder`.

    base_name: recorded as the base; what `from_pretrained` would load it from.
    """
    layers = dict(lora_layers(model.base))
    first = next(iter(layers.values()))
    prefix = f"{model.base.base_model_prefix}."
    tensors = {"score.weight": model.score.weight}
    saved_whole = {"score"}
    for name, layer in layers.items():
        tensors[f"{prefix}{name}.lora_A.weight"] = layer.U
        tensors[f"{prefix}{name}.lora_B.weight"] = layer.V
    for name, parameter in model.base.named_parameters():
        if parameter.requires_grad and not name.endswith((".U", ".V")):
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
    """A classifier from `base` and an adapter of ours or of PEFT's, in evaluation mode.

    Raises:
        UserError: no adapter there, one that is no LoRA classifier, or one of another base.
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
    tensors = read_adapter_weights(folder)
    prefix = f"{base.base_model_prefix}."
    if "score.weight" not in tensors:
        raise UserError(f"{folder}/{ADAPTER_WEIGHTS} has no head (score.weight): no classifier.")
    names = [
        key.removeprefix(prefix).removesuffix(".lora_A.weight")
        for key in tensors
        if key.endswith(".lora_A.weight")
    ]
    linear = set(linear_names(base))
    foreign = sorted(set(names) - linear)
    if foreign:
        raise UserError(f"{folder} adapts {foreign[0]}, which the base has not: another base.")
    model = Classifier(base, tensors["score.weight"].shape[0])
    add_lora(base, names, config["r"], config["lora_alpha"], config.get("lora_dropout") or 0.0)
    # As PEFT matches them; what was saved whole must be there whole, and is saved whole again.
    whole = tuple(config.get("modules_to_save") or ())
    for name, module in base.named_modules():
        if name and name.endswith(whole):
            module.requires_grad_(True)
    load_adapter_weights(model, folder, tensors)
    return model.eval()


def write_adapter_weights(folder: Path, tensors: dict[str, Any]) -> None:
    """Writes an adapter file; `tensors` are named as `read_adapter_weights` names them."""
    outer = {PEFT_PREFIX + name: value for name, value in tensors.items()}
    write_tensors(folder / ADAPTER_WEIGHTS, outer)


def read_adapter_weights(folder: Path) -> dict[str, Tensor]:
    """Tensors of an adapter file, their names without PEFT's outer prefix."""
    try:
        tensors = load_file(folder / ADAPTER_WEIGHTS)
    except Exception as error:  # safetensors raises its own, OSError and ValueError
        raise UserError(f"{folder / ADAPTER_WEIGHTS} can't be read: {error}.") from error
    return {key.removeprefix(PEFT_PREFIX): value for key, value in tensors.items()}


@torch.no_grad()
def load_adapter_weights(
    model: Classifier, folder: Path, tensors: dict[str, Tensor] | None = None
) -> None:
    """Copies an adapter file's tensors into `model`, every one, each into its own place."""
    tensors = read_adapter_weights(folder) if tensors is None else tensors
    parameters = {
        f"{model.base.base_model_prefix}.{n}": p for n, p in model.base.named_parameters()
    }
    parameters["score.weight"] = model.score.weight
    for key, value in tensors.items():
        name = key.replace(".lora_A.weight", ".U").replace(".lora_B.weight", ".V")
        if name not in parameters:
            raise UserError(f"{folder}: {key} has no place in the base: another base.")
        if parameters[name].shape != value.shape:
            raise UserError(
                f"{folder}: {key} is {tuple(value.shape)} where the base needs "
                f"{tuple(parameters[name].shape)}: another base."
            )
        parameters[name].copy_(value)
    missing = [n for n, p in parameters.items() if p.requires_grad and _absent(n, tensors)]
    if missing:
        raise UserError(f"{folder}/{ADAPTER_WEIGHTS} lacks {missing[0]}; the file is not whole.")


def _absent(name: str, tensors: dict[str, Tensor]) -> bool:
    adapter = {".U": ".lora_A.weight", ".V": ".lora_B.weight"}
    key = name[:-2] + adapter[name[-2:]] if name[-2:] in adapter else name
    return key not in tensors


def mean_of_adapters(weights: list[dict[str, Tensor]], scalings: list[float]) -> dict[str, Tensor]:
    """One adapter whose updates are the mean of the others', exactly; heads and norms averaged.

    Σ s_i V_i U_i / n is one product V U, with all U_i one under another and all s_i V_i / n side by
    side: the ranks add up, and V U is to be scaled by 1.
    """
    mean = {}
    for name in weights[0]:
        parts = [one[name] for one in weights]
        if name.endswith(".lora_A.weight"):
            mean[name] = torch.cat(parts)
        elif name.endswith(".lora_B.weight"):
            scaled = [s / len(parts) * part for s, part in zip(scalings, parts, strict=True)]
            mean[name] = torch.cat(scaled, dim=1)
        else:
            mean[name] = torch.stack(parts).mean(0)
    return mean


def common_rank(tensors: dict[str, Tensor]) -> int:
    """The rank of an adapter, once every layer can have it."""
    rank = 0
    for name, V in tensors.items():
        if not name.endswith(".lora_B.weight"):
            continue
        layer = name.removesuffix(".lora_B.weight")
        rank = V.shape[1]
        widest = min(V.shape[0], tensors[f"{layer}.lora_A.weight"].shape[1])
        if rank > widest:
            raise UserError(
                f"the adapters' ranks add up to {rank}, more than the {widest} that {layer} can "
                "have; average fewer."
            )
    return rank


def teacher_hash(
    base_sha256: str, adapter_weights: Path, max_length: int, start: int | None
) -> str:
    """What settles a teacher's logits: its base, its adapter, and how it takes sentences."""
    adapter = hashlib.sha256(adapter_weights.read_bytes()).hexdigest()
    return hashlib.sha256(f"{base_sha256} {adapter} {max_length} {start}".encode()).hexdigest()
