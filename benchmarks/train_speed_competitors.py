"""What train_speed.py compares: each function returns one that works through some sentences.

All train the same parameters: LoRA of rank 4 on every linear layer of every block, the norms and
the head.
"""

import json
import tempfile
import time
from pathlib import Path

RANK, ALPHA, LR = 4, 8, 6e-4


def length_histogram() -> dict[str, int]:
    """Return how many of CoLA's training sentences have how many tokens; see cola_lengths.py."""
    return json.loads(Path(__file__).with_name("cola_lengths.json").read_text())


def draw_sentences(number: int, vocab_size: int, seed: int) -> list[list[int]]:
    """Return sentences of random tokens with CoLA's distribution of lengths."""
    import numpy as np

    histogram = length_histogram()
    lengths, counts = np.array(list(map(int, histogram))), np.array(list(histogram.values()))
    rng = np.random.default_rng([seed, number])
    # Even quantiles, not random lengths: the mean is the same for every competitor and round.
    cumulative = counts.cumsum() / counts.sum()
    picked = lengths[np.searchsorted(cumulative, (np.arange(number) + 0.5) / number)]
    return [rng.integers(10, vocab_size, n).tolist() for n in rng.permutation(picked)]


def device() -> str:
    """Return the device that all competitors compute on."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def train_classic(folder: Path):
    """Train like a tutorial: every sentence padded to 20 tokens, with a mask, in fp32."""
    import torch
    from transformers import AutoModelForSequenceClassification

    from potstill.decoder.lora import apply_lora

    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
    model.config.pad_token_id = 0
    base = getattr(model, model.base_model_prefix)
    apply_lora(base, RANK, ALPHA)
    model.to(device())
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=LR)
    model.train()

    def work(sentences: list[list[int]]) -> None:
        for start in range(0, len(sentences), 128):
            batch = [s[:20] for s in sentences[start : start + 128]]
            ids = torch.tensor([s + [0] * (20 - len(s)) for s in batch])
            mask = torch.tensor([[1] * len(s) + [0] * (20 - len(s)) for s in batch])
            labels = torch.arange(len(batch)) % 2
            ids, mask, labels = (x.to(device()) for x in (ids, mask, labels))
            model(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
            torch.nn.utils.clip_grad_norm_(trainable, 1.0)
            optimizer.step()
            optimizer.zero_grad()

    return work


def train_peft(folder: Path, tuned: bool):
    """Train by PEFT and Trainer, with their defaults or `tuned`."""
    import torch
    from peft import LoraConfig, get_peft_model
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import (
        AutoModelForSequenceClassification,
        DataCollatorWithPadding,
        PreTrainedTokenizerFast,
        Trainer,
        TrainingArguments,
    )

    from potstill.decoder.lora import linear_names, norm_names

    dtype = torch.bfloat16 if tuned else torch.float32
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2, dtype=dtype)
    model.config.pad_token_id = 0
    base = getattr(model, model.base_model_prefix)
    config = LoraConfig(
        task_type="SEQ_CLS",
        r=RANK,
        lora_alpha=ALPHA,
        target_modules=sorted({n.rsplit(".", 1)[-1] for n in linear_names(base)}),
        modules_to_save=sorted({n.rsplit(".", 1)[-1] for n in norm_names(base)} | {"score"}),
        fan_in_fan_out=model.config.model_type == "gpt2",
    )
    model = get_peft_model(model, config)
    # The sentences are tokens already; the collator needs a tokenizer only to pad them.
    padder = Tokenizer(WordLevel({"<pad>": 0}))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=padder, pad_token="<pad>")
    settings = {"bf16": True, "train_sampling_strategy": "group_by_length"} if tuned else {}

    def work(sentences: list[list[int]]) -> None:
        rows = [
            {"input_ids": s, "attention_mask": [1] * len(s), "labels": i % 2}
            for i, s in enumerate(sentences)
        ]
        with tempfile.TemporaryDirectory() as scratch:
            arguments = TrainingArguments(
                output_dir=scratch,
                per_device_train_batch_size=32,
                num_train_epochs=1,
                learning_rate=LR,
                use_cpu=device() == "cpu",
                report_to=[],
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
                **settings,
            )
            collator = DataCollatorWithPadding(tokenizer)
            Trainer(model, arguments, train_dataset=rows, data_collator=collator).train()

    return work


def potstill_epoch(model, tokens: list[list[int]], settings, microbatch_tokens=None) -> None:
    """Train one epoch by potstill's own loop, without evaluation."""
    from potstill.data.batching import LabelledDataset
    from potstill.training.checkpoint import Checkpoint
    from potstill.training.loop import train
    from potstill.training.losses import classification_loss

    with tempfile.TemporaryDirectory() as scratch:
        train(
            model,
            LabelledDataset(tokens, [i % 2 for i in range(len(tokens))]),
            classification_loss,
            {},
            settings=settings,
            epochs=1,
            seed=0,
            checkpoint=Checkpoint(Path(scratch) / "state", {}),
            report=lambda metrics: None,
            microbatch_tokens=microbatch_tokens,
        )


def tuned_classifier(folder: Path):
    """Return potstill's model as its commands use it on hardware with fast bf16."""
    from potstill.decoder.classifier import build_lora_classifier
    from potstill.decoder.hub import find_base_model
    from potstill.training.precision import cast_frozen_to_bf16

    model = build_lora_classifier(find_base_model(str(folder)).base(), 2, rank=RANK, alpha=ALPHA)
    cast_frozen_to_bf16(model.base)
    return model


def train_potstill(folder: Path):
    """Train by potstill."""
    from potstill.decoder.classifier import MICROBATCH_TOKENS
    from potstill.settings import ResolvedTrainSettings

    model = tuned_classifier(folder)
    settings = ResolvedTrainSettings(lr=LR, batch_size=32)
    return lambda sentences: potstill_epoch(model, sentences, settings, MICROBATCH_TOKENS)


def multiply_only(folder: Path):
    """Compute the forward product and input gradient of every linear layer alone, in bf16.

    No implementation that computes these products by PyTorch can be faster.
    """
    import torch

    from potstill.data.batching import length_batches
    from potstill.decoder.fused_linear import FrozenWeights
    from potstill.decoder.hub import find_base_model
    from potstill.decoder.lora import features, linear_names

    base = find_base_model(str(folder)).base().bfloat16().to(device())
    layers = [FrozenWeights([base.get_submodule(name)]) for name in linear_names(base)]
    sizes = [features(base.get_submodule(name)) for name in linear_names(base)]

    @torch.no_grad()
    def work(sentences: list[list[int]]) -> None:
        lengths = [len(s) for s in sentences]
        for index in length_batches(lengths, 32, seed=0, epoch=1):
            rows = sum(lengths[i] for i in index)
            widths = {n for pair in sizes for n in pair}
            inputs_of = {
                n: torch.ones(rows, n, dtype=torch.bfloat16, device=device()) for n in widths
            }
            for frozen, (inputs, outputs) in zip(layers, sizes, strict=True):
                frozen.forward(inputs_of[inputs])
                frozen.backward(inputs_of[outputs])

    return work


def label_pipeline(folder: Path):
    """Classify by transformers' pipeline, at the fastest of several batch sizes."""
    import torch
    from transformers import AutoModelForSequenceClassification, TextClassificationPipeline

    from potstill.decoder.hub import find_base_model

    model = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=2, dtype=torch.float32
    )
    tokenizer = find_base_model("smollm2").tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id
    pipe = TextClassificationPipeline(model=model, tokenizer=tokenizer, device=device())

    def work(sentences: list[list[int]], batch_size: int = 0) -> None:
        pipe(tokenizer.batch_decode(sentences), batch_size=batch_size or best)

    trial = draw_sentences(128, tokenizer.vocab_size, 99)
    best, fastest = 0, float("inf")
    for size in (1, 8, 32, 64):
        started = time.perf_counter()
        work(trial, size)
        if (taken := time.perf_counter() - started) < fastest:
            best, fastest = size, taken
    return work


def label_potstill(folder: Path):
    """Classify by potstill, tokenisation included."""
    from potstill.decoder.classifier import encode
    from potstill.decoder.hub import find_base_model
    from potstill.training.distributed import predict_logits

    model = tuned_classifier(folder).to(device())
    tokenizer = find_base_model("smollm2").tokenizer()

    def work(sentences: list[list[int]]) -> None:
        tokens, _ = encode(tokenizer, tokenizer.batch_decode(sentences), 128)
        predict_logits(model, tokens)

    return work


def train_student(folder: Path):
    """Train a DistilRNN of the default shape."""
    import torch

    from potstill.settings import ResolvedTrainSettings, StudentSettings
    from potstill.student.model import DistilRNN, StudentConfig

    config = StudentConfig(classes=2, **StudentSettings().model_kwargs())
    model = DistilRNN(config, product_dtype=torch.bfloat16)

    def work(sentences: list[list[int]]) -> None:
        tokens = [[t % model.config.vocab_size for t in s] for s in sentences]
        potstill_epoch(model, tokens, ResolvedTrainSettings(batch_size=64))

    return work
