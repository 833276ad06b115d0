"""What train_speed.py compares: one process a side.

    python benchmarks/train_speed_workers.py SIDE FOLDER_OF_THE_DECODER TIME_OF_THE_START

All sides train the same parameters: LoRA of rank 4 on every linear layer of every block, the norms
and the head. Each prints a line of JSON when its first step is done, and one for every line it
reads, after working a round through.
"""

import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
SIDES = {
    "classic": "plain PyTorch loop, fp32, padded to 20 tokens, batch 128",
    "peft": "PEFT + Trainer, defaults (fp32, dynamic padding, batch 32)",
    "peft_tuned": "PEFT + Trainer, tuned (bf16 base, length grouping, batch 32)",
    "potstill": "potstill, batch 32",
    "ceiling": "linear layers alone, forward and input gradient, bf16",
    "pipeline": "transformers.pipeline, fp32, at its best batch size",
    "labels": "potstill",
    "student": "potstill, DistilRNN of the default shape, batch 64",
}
# What a side works through in a round: about ten seconds on two cores, a few on a GPU.
SENTENCES = {"classic": 128, "peft": 128, "peft_tuned": 256, "potstill": 1024, "ceiling": 512}
SENTENCES |= {"pipeline": 256, "labels": 1024, "student": 4096}
ON_GPU = {"classic": 1024, "peft": 256, "peft_tuned": 256, "potstill": 8192, "ceiling": 4096}
ON_GPU |= {"pipeline": 2048, "labels": 8192, "student": 8192}
OURS = ("potstill", "labels", "student")
RANK, ALPHA, LR = 4, 8, 6e-4


def length_histogram() -> dict[str, int]:
    """How many of CoLA's training sentences have how many tokens; see cola_lengths.py."""
    return json.loads((HERE / "cola_lengths.json").read_text())


def draw_sentences(number: int, vocabulary: int, round_: int) -> list[list[int]]:
    """Random tokens with CoLA's distribution of lengths; a number of its own for each round."""
    import numpy as np

    histogram = length_histogram()
    lengths, counts = np.array(list(map(int, histogram))), np.array(list(histogram.values()))
    rng = np.random.default_rng([round_, number])
    # Even quantiles rather than chance, so that every side and round has the same mean length.
    cumulative = counts.cumsum() / counts.sum()
    picked = lengths[np.searchsorted(cumulative, (np.arange(number) + 0.5) / number)]
    return [rng.integers(10, vocabulary, n).tolist() for n in rng.permutation(picked)]


def device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def peak_memory() -> float:
    """The most memory of the GPU that was in use, else the process's largest resident size, GB."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def classic_side(folder: Path):
    """The loop of a tutorial: every sentence padded to 20 tokens, with a mask, in fp32."""
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


def peft_side(folder: Path, tuned: bool):
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
    # The sentences are tokens already; the collator asks for what pads them.
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


def potstill_epoch(model, tokens: list[list[int]], settings, part_tokens=None) -> None:
    """One epoch of potstill's own loop, nothing evaluated."""
    import torch
    from torch.nn import functional as F

    from potstill.training.checkpoint import TrainingState
    from potstill.training.loop import Examples, train

    labels = torch.arange(len(tokens), device=device()) % 2
    with tempfile.TemporaryDirectory() as scratch:
        train(
            model,
            Examples(tokens, labels.tolist()),
            lambda logits, index: F.cross_entropy(logits, labels[index.to(labels.device)]),
            {},
            settings,
            epochs=1,
            seed=0,
            state=TrainingState(Path(scratch) / "state", {}),
            report=lambda record: None,
            part_tokens=part_tokens,
        )


def tuned_classifier(folder: Path):
    """potstill's model as its commands use it on hardware that multiplies bf16 fast."""
    from potstill.decoder.classifier import build_lora_classifier
    from potstill.decoder.hub import find_base_model
    from potstill.training.precision import cast_frozen_to_bf16

    model = build_lora_classifier(find_base_model(str(folder)).base(), 2, RANK, ALPHA)
    cast_frozen_to_bf16(model.base)
    return model


def potstill_side(folder: Path):
    from potstill.decoder.classifier import MICROBATCH_TOKENS
    from potstill.settings import TrainSettings

    model = tuned_classifier(folder)
    settings = TrainSettings(lr=LR, batch_size=32)
    return lambda sentences: potstill_epoch(model, sentences, settings, MICROBATCH_TOKENS)


def ceiling_side(folder: Path):
    """Forward product and input gradient of every linear layer, at the fastest that PyTorch has."""
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
        for index in length_batches(lengths, 32, 0, 1):
            rows = sum(lengths[i] for i in index)
            widths = {n for pair in sizes for n in pair}
            into = {n: torch.ones(rows, n, dtype=torch.bfloat16, device=device()) for n in widths}
            for frozen, (inputs, outputs) in zip(layers, sizes, strict=True):
                frozen.forward(into[inputs])
                frozen.backward(into[outputs])

    return work


def pipeline_side(folder: Path):
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


def labels_side(folder: Path):
    from potstill.decoder.classifier import encode
    from potstill.decoder.hub import find_base_model
    from potstill.training.distributed import predict_logits

    model = tuned_classifier(folder).to(device())
    tokenizer = find_base_model("smollm2").tokenizer()

    def work(sentences: list[list[int]]) -> None:
        tokens, _ = encode(tokenizer, tokenizer.batch_decode(sentences), 128)
        predict_logits(model, tokens)

    return work


def student_side(folder: Path):
    import torch

    from potstill.settings import StudentSettings, TrainSettings
    from potstill.student.model import DistilRNN, StudentConfig

    model = DistilRNN(StudentConfig(classes=2, **StudentSettings().model_kwargs()))
    model.product_dtype = torch.bfloat16

    def work(sentences: list[list[int]]) -> None:
        tokens = [[t % model.config.vocab_size for t in s] for s in sentences]
        potstill_epoch(model, tokens, TrainSettings(batch_size=64))

    return work


def run_side(side: str, folder: Path, started: float) -> None:
    """A side's process: gets ready, then works a round through at every line of standard input."""
    if side in OURS:
        os.environ["GOMP_SPINCOUNT"] = "10000"  # as potstill's own command line does
    makers = {
        "classic": classic_side,
        "peft": lambda f: peft_side(f, tuned=False),
        "peft_tuned": lambda f: peft_side(f, tuned=True),
        "potstill": potstill_side,
        "ceiling": ceiling_side,
        "pipeline": pipeline_side,
        "labels": labels_side,
        "student": student_side,
    }
    import torch

    of_side = makers[side](folder)
    synchronize = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None

    def work(sentences: list[list[int]]) -> None:
        of_side(sentences)
        synchronize()

    # One step first: it warms up, tells how long a user waits for it, and has CoLA's longest
    # sentence in it, so that the peak of memory is an epoch's.
    first_batch = draw_sentences(128 if side == "classic" else 32, 40_000, 0)
    first_batch[0] = list(range(10, 10 + max(map(int, length_histogram()))))
    work(first_batch)
    first = time.time() - started
    print(json.dumps({"first_step_s": first}), flush=True)
    number = (ON_GPU if device() == "cuda" else SENTENCES)[side]
    for line in sys.stdin:
        sentences = draw_sentences(number, 40_000, int(line))
        begun = time.perf_counter()
        work(sentences)
        rate = len(sentences) / (time.perf_counter() - begun)
        print(json.dumps({"rate": rate, "peak_gb": peak_memory()}), flush=True)


if __name__ == "__main__":
    run_side(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]))
