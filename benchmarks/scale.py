"""How fast a transfer set is made, sampling with soft targets and labelling after every word, and
how fast a student learns from it.

    python benchmarks/scale.py [--sentences 262144] [--labelled 400000] [--learnt 400000]
        [--rounds 3]

SmolLM2-135M samples once it is tuned to MiniCoLA's training sentences, as `transfer` does it; it
labels with random adapters of rank 8, as speed does not depend on them. Where PyTorch sees a GPU,
both compute there. Of sampling, the device's part alone is timed, and then all that `transfer` does
with a sentence: text, tokens again and targets. A student of the default shape learns from random
tokens of CoLA's lengths, as a language model and by distillation with a target at every token, a
round being one pass in batches of 1,024: on a GPU only. On two cores, name some hundred sentences.
"""

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from train_speed import machine

from potstill.data.batching import UNLABELLED, length_batches
from potstill.data.corpus import load_corpus
from potstill.data.token_array import TokenArray, offsets_of
from potstill.decoder.adapter import save_adapter
from potstill.decoder.classifier import build_lora_classifier
from potstill.decoder.hub import BaseModel, find_base_model
from potstill.decoder.lora import lora_layers
from potstill.distillation.dataset import DistillationDataset
from potstill.distillation.losses import distillation_loss
from potstill.distillation.resident import ResidentDataset, ResidentText
from potstill.distillation.word_targets import WordTargets
from potstill.inference.decoder import DecoderClassifier
from potstill.ops.threads import tokenizers_in_parallel
from potstill.settings import DistilSettings, ResolvedTrainSettings
from potstill.student.heads import NextTokenHead
from potstill.student.model import DistilRNN, StudentConfig
from potstill.training.distributed import process
from potstill.training.optim import adamw
from potstill.training.precision import resolve_precision
from potstill.training.resident import (
    ResidentStep,
    layered_classifier,
    layered_language_model,
)
from potstill.transfer.gpu_sampling import sample_blocks
from potstill.transfer.sampler import Sampler, load_sampler, max_tokens

LENGTHS = Path(__file__).parent / "cola_lengths.json"
VOCAB_SIZE = 8192
RESULTS = Path(__file__).parent / "results" / "scale.json"


def timed(work: Callable[[int], int], rounds: int) -> dict[str, float]:
    """Return the median of sentences a second, over rounds with seeds of their own, and the spread;
    a first round warms up."""
    rates = []
    for seed in range(rounds + 1):
        started = time.perf_counter()
        sentences = work(seed)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        rates.append(sentences / (time.perf_counter() - started))
    return {
        "rate": round(statistics.median(rates[1:]), 1),
        "lowest": round(min(rates[1:]), 1),
        "highest": round(max(rates[1:]), 1),
    }


def sample_on_device(sampler: Sampler, sentences: int, seed: int, *, soft_targets: bool) -> int:
    """Sample sentences; return how many ended in time."""
    model = sampler.model
    blocks = sample_blocks(
        model, sentences, seed, 1.0, max_tokens(model), soft_targets=soft_targets
    )
    return sum(len(block.lengths) for block in blocks)


def sample_whole(sampler: Sampler, sentences: int, seed: int, *, soft_targets: bool) -> int:
    """Sample sentences as `transfer` gets them; return how many ended in time."""
    return sum(1 for _ in sampler.sample(sentences, seed, 1.0, soft_targets=soft_targets))


def teacher(base_model: BaseModel, folder: Path) -> DecoderClassifier:
    """Return a teacher with random adapters."""
    torch.manual_seed(0)
    model = build_lora_classifier(base_model.base(), 2, rank=8, alpha=16.0)
    with torch.no_grad():
        for _, layer in lora_layers(model.base):
            layer.V.normal_(std=0.01)
        model.score.weight.normal_(std=0.01)
    save_adapter(model, folder, base_model.name)
    return DecoderClassifier(folder, gpt_variant=base_model.name)


def random_dataset(sentences: int, vocab_size: int) -> DistillationDataset:
    """Return sentences of random tokens and targets, with CoLA's lengths."""
    rng = np.random.default_rng(0)
    counts = json.loads(LENGTHS.read_text())
    lengths = np.repeat([int(n) for n in counts], list(counts.values()))
    lengths = rng.choice(lengths, sentences)
    offsets = offsets_of(lengths)
    tokens = TokenArray(rng.integers(1, vocab_size, offsets[-1]).astype(np.int32), offsets)
    positions = torch.from_numpy(np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths))
    logits = torch.from_numpy(rng.normal(size=(offsets[-1], 2)).astype(np.float32))
    words = WordTargets(positions, logits, torch.from_numpy(offsets))
    whole = logits[torch.from_numpy(offsets[1:] - 1)]
    labels = np.full(sentences, UNLABELLED)
    return DistillationDataset(tokens, labels, np.ones(sentences, bool), whole, words)


def learn(dataset: DistillationDataset, *, language_model: bool) -> Callable[[int], int]:
    """Return a pass of a student over `dataset`, by a language model's loss or by distillation."""
    device = process().device
    config = StudentConfig(vocab_size=VOCAB_SIZE, classes=2, word_head=not language_model)
    settings = ResolvedTrainSettings(batch_size=1024, lr=4e-3)
    torch.manual_seed(0)
    if language_model:
        student = DistilRNN(replace(config, layers=1), resolve_precision("auto")).to(device)
        model: nn.Module = NextTokenHead(student).to(device).train()
        data: ResidentText | ResidentDataset = ResidentText.of(dataset.text(), device)
        network: Any = layered_language_model(model)
        loss_function: Any = lambda loss, batch: loss  # noqa: E731
    else:
        model = DistilRNN(config, resolve_precision("auto")).to(device).train()
        data = ResidentDataset.of(dataset, device)
        network = layered_classifier(model)
        loss_function = partial(distillation_loss, settings=DistilSettings())
    step = ResidentStep(
        network,
        loss_function,
        adamw(model, settings),
        settings.clip,
        parameters=list(model.parameters()),
        batch_size=settings.batch_size,
    )

    def one_pass(seed: int) -> int:
        for batch in length_batches(data.lengths, 1024, seed=0, epoch=seed, one_length=True):
            if language_model and data.lengths[batch[0]] < 2:
                continue
            step(data, batch)
        return len(data)

    return one_pass


def measure(
    base: str, *, sentences: int, labelled: int, learnt: int, rounds: int
) -> dict[str, dict[str, float]]:
    """Return the figures of each part."""
    base_model = find_base_model(base)
    train = load_corpus("minicola").splits["train"].sentences
    figures = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        sampler = load_sampler(folder, base_model, train, epochs=1, seed=0)
        whole = max(1, sentences // 2)
        for soft, name in ((False, "sampling"), (True, "sampling with soft targets")):
            on_device = partial(sample_on_device, sampler, sentences, soft_targets=soft)
            figures[f"{name}, on the device"] = timed(on_device, rounds)
            as_transfer = partial(sample_whole, sampler, whole, soft_targets=soft)
            figures[f"{name}, as transfer gets them"] = timed(as_transfer, rounds)
        texts = [text for text, _ in sampler.sample(whole, 99, 1.0, soft_targets=False) if text]
        texts = list(itertools.islice(itertools.cycle(texts), labelled))
        labeller = teacher(base_model, folder)
        figures["labelling after every word"] = timed(
            lambda seed: len(labeller.word_logits(texts)), rounds
        )
    if not torch.cuda.is_available():  # train_speed.py measures students on a processor
        return figures
    dataset = random_dataset(learnt, VOCAB_SIZE)
    figures["a student as a language model"] = timed(learn(dataset, language_model=True), rounds)
    figures["a student, distilling"] = timed(learn(dataset, language_model=False), rounds)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", default="smollm2", help="base decoder, as --gpt_variant names it")
    parser.add_argument("--sentences", type=int, default=262_144, help="to sample in a round")
    parser.add_argument("--labelled", type=int, default=400_000, help="to label in a round")
    parser.add_argument("--learnt", type=int, default=400_000, help="to learn from in a round")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each part")
    parser.add_argument("--output", type=Path, default=RESULTS, help="JSON file to write")
    args = parser.parse_args()
    with tokenizers_in_parallel():  # as in `transfer`
        figures = measure(
            args.base,
            sentences=args.sentences,
            labelled=args.labelled,
            learnt=args.learnt,
            rounds=args.rounds,
        )
    about = machine() | {"device": str(process().device)}
    args.output.write_text(json.dumps({"machine": about, "figures": figures}, indent=1) + "\n")
    print(f"{about.get('gpu', about['cpu'])}, median of {args.rounds} rounds (lowest, highest)\n")
    print("| | sentences/s | |\n|---|---:|---:|")
    for name, figure in figures.items():
        spread = f"{figure['lowest']:.0f} to {figure['highest']:.0f}"
        print(f"| {name} | {figure['rate']:.0f} | {spread} |")


if __name__ == "__main__":
    main()
