"""A decoder that classifies: a head reads the hidden state at the last real token."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from potstill import UserError
from potstill.blocks import Blocks, take_apart
from potstill.checkpoint import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    read_json,
    write_json,
    write_tensors,
)
from potstill.lora import LOCK, add_lora, linear_names, lora_layers, norm_names
from potstill.words import word_ends

# Settings of PEFT's that change what an adapter computes and that LoRALinear does not know.
UNKNOWN_TO_US = (
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
PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
PEFT_PREFIX = "base_model.model."  # of every tensor in an adapter file
PART_TOKENS = 256  # that a thread passes through a decoder at once, in training


class Classifier(nn.Module):
    """`base`, a decoder of transformers without vocabulary head, and `score`, a linear head
    without bias (Radford et al. 2018, *Improving Language Understanding by Generative
    Pre-Training*, section 3.2), as in transformers' own GPT2ForSequenceClassification."""

    def __init__(self, base: Any, classes: int):
        super().__init__()
        self.base = base
        self.score = nn.Linear(base.config.hidden_size, classes, bias=False)
        # A decoder's states are large: random weights would begin with sure answers, and a loss
        # far above that of none.
        nn.init.zeros_(self.score.weight)
        # A snapshot of the base, and the state of the frozen weights that it was taken in.
        self._blocks: Blocks | None = None
        self._taken_apart: list[Any] = []

    def forward(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """(B, L) tokens, padded on the right, and their (B,) lengths to (B, classes) logits.

        No mask: attention is causal, so no real token sees the padding behind it.
        """
        if blocks := self._parts():
            last = blocks.last_hidden(input_ids, lengths)
        else:
            last = self.plain_last_hidden(input_ids, lengths)
        return self.score(last.to(self.score.weight.dtype))

    def after_each_token(self, input_ids: Tensor) -> Tensor:
        """(B, L) tokens to (B, L, classes): the logits of a sentence that would end with each."""
        blocks = self._parts()
        hidden = blocks.hidden(input_ids) if blocks else self._plain_hidden(input_ids)
        return self.score(hidden.to(self.score.weight.dtype))

    def plain_last_hidden(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """(B, width) hidden states at the last real tokens, by transformers' own modules: the way
        for a decoder that `blocks` has not written out, and what that is tested against."""
        hidden = self._plain_hidden(input_ids)
        return hidden[torch.arange(len(lengths), device=hidden.device), lengths - 1]

    def _plain_hidden(self, input_ids: Tensor) -> Tensor:
        half = self.base.dtype == torch.bfloat16
        with torch.autocast(input_ids.device.type, torch.bfloat16, enabled=half):
            return self.base(input_ids=input_ids, use_cache=False).last_hidden_state

    def _parts(self) -> Blocks | None:
        """The base taken apart, anew where its frozen weights have changed."""
        frozen = [p for p in self.base.parameters() if not p.requires_grad]
        state = [(p.data_ptr(), p._version, p.dtype) for p in frozen]
        with LOCK:
            if state != self._taken_apart:
                self._blocks, self._taken_apart = take_apart(self.base), state
            return self._blocks

    def train(self, mode: bool = True) -> "Classifier":
        """The frozen base keeps to evaluation mode: of dropouts only LoRA's own is in use."""
        super().train(mode)
        self.base.eval()
        for _, layer in lora_layers(self.base):
            layer.train(mode)
        return self


def tunable_classifier(
    base: Any, classes: int, rank: int, alpha: float, dropout: float = 0.0
) -> Classifier:
    """LoRA on every linear layer of every block; LayerNorms and head trainable, all else frozen."""
    model = Classifier(base, classes)
    add_lora(base, linear_names(base), rank, alpha, dropout)
    for name in norm_names(base):
        base.get_submodule(name).requires_grad_(True)
    return model


def parameter_counts(model: nn.Module) -> tuple[int, int]:
    """All and trainable parameters; tied weights count once."""
    total = sum(p.numel() for p in model.parameters())
    return total, sum(p.numel() for p in model.parameters() if p.requires_grad)


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
    for key in UNKNOWN_TO_US:
        if config.get(key):
            raise UserError(f"{folder}/{ADAPTER_CONFIG}: {key} is not supported.")
    if config.get("init_lora_weights", True) not in PLAIN_STARTS:
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


def encode(
    tokenizer: Any, sentences: list[str], max_length: int, start: int | None = None
) -> tuple[list[list[int]], int]:
    """Tokens of each sentence and how many sentences were cut at `max_length` tokens.

    start: a token to put before each. Decoders attend to their first token whatever it is (Xiao et
    al. 2024, *Efficient Streaming Language Models with Attention Sinks*, section 3.1), so it had
    better not be the sentence's first word.
    """
    tokens = tokenizer(sentences, add_special_tokens=False)["input_ids"]
    if start is not None:
        tokens = [[start, *t] for t in tokens]
    cut = sum(len(t) > max_length for t in tokens)
    return [t[:max_length] for t in tokens], cut


def word_places(
    tokenizer: Any, sentences: list[str], max_length: int, start: int | None = None
) -> list[list[int]]:
    """Of each sentence the places of its words' last tokens among those that `encode` gives."""
    begun = int(start is not None)
    offsets = tokenizer(sentences, add_special_tokens=False, return_offsets_mapping=True)
    found = []
    for sentence, spans in zip(sentences, offsets["offset_mapping"], strict=True):
        ends = [end for _, end in spans[: max_length - begun]]
        found.append([place + begun for place in word_ends(sentence, ends)])
    return found
