"""A tuned decoder as an ordinary classifier of transformers: LoRA merged into the weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers.processors import TemplateProcessing
from torch import Tensor

from potstill.decoder.classifier import Classifier
from potstill.decoder.lora import merge
from potstill.errors import UserError
from potstill.files import STUDENT_WEIGHTS, write_tensors


def write_merged(
    model: Classifier,
    tokenizer: Any,
    folder: Path,
    *,
    labels: Sequence[str],
    max_length: int,
    start_token: int | None,
    about: dict[str, Any],
) -> None:
    """Write `model` into `folder` so that `transformers.pipeline` reads it.

    Args:
        model: The classifier, in fp32 and with its LoRA layers; these are merged in place.
        tokenizer: The tokenizer of its base, of transformers; changed in place.
        folder: An existing folder.
        labels: Names of the classes.
        max_length: Where the tokenizer cuts a text, if it is asked to.
        start_token: The token that it puts before each text, or None.
        about: What config.json gets besides.

    Raises:
        UserError: transformers has no classifier for this family of decoders, or another one.
    """
    from transformers import AutoModelForSequenceClassification

    merge(model.base)
    config = model.base.config
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: i for i, label in enumerate(labels)}
    # Its head reads the last token that is not padding, and refuses to guess in a batch.
    pad = tokenizer.pad_token_id
    if pad is None:
        pad = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else start_token or 0
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad)
    config.pad_token_id = pad
    for key, value in about.items():
        setattr(config, key, value)
    family = type(model.base).__name__
    try:
        with torch.device("meta"):
            classifier = AutoModelForSequenceClassification.from_config(config)
    except ValueError as error:
        raise UserError(
            f"transformers has no text classifier for a {family}; use the adapter as it is."
        ) from error
    prefix = f"{model.base.base_model_prefix}."
    tensors = {prefix + name: value for name, value in model.base.state_dict().items()}
    tensors["score.weight"] = model.score.weight.detach()
    misfits = {*classifier.state_dict()} ^ {*tensors}
    if misfits:
        raise UserError(
            f"transformers' text classifier for a {family} has other weights than this decoder "
            f"({min(misfits)}); use the adapter as it is."
        )
    config.architectures = [type(classifier).__name__]
    config.dtype = torch.float32
    config.save_pretrained(folder)
    write_tensors(folder / STUDENT_WEIGHTS, tensors)
    _ready_tokenizer(tokenizer, max_length, start_token).save_pretrained(folder)


def _ready_tokenizer(tokenizer: Any, max_length: int, start_token: int | None) -> Any:
    """Return a tokenizer that encodes as `classifier.encode` does."""
    from transformers import PreTrainedTokenizerFast

    backend = tokenizer.backend_tokenizer
    # The default adds what `encode` leaves out, or leaves out what it adds.
    single, special = "$A:0", []
    if start_token is not None:
        token = tokenizer.convert_ids_to_tokens(start_token)
        single, special = f"{token}:0 $A:0", [(token, start_token)]
    backend.post_processor = TemplateProcessing(single=single, special_tokens=special)
    backend.no_truncation()
    backend.no_padding()
    # Of the general class: those of a family may build their own post-processor when loaded.
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=tokenizer.bos_token,
        eos_token=tokenizer.eos_token,
        pad_token=tokenizer.pad_token,
        unk_token=tokenizer.unk_token,
        padding_side="right",
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
        split_special_tokens=tokenizer.split_special_tokens,
    )


def transformers_logits(folder: Path, texts: list[str]) -> Tensor:
    """Return the (N, classes) logits that transformers computes with a merged decoder, by the
    batch, as a pipeline does."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
    )
    with torch.no_grad():
        inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        return model.eval()(**inputs).logits
