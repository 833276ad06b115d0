"""How fast a transfer set is made: sampling with soft targets, and labelling after every word.

    python benchmarks/scale.py [--sentences 262144] [--labelled 400000] [--rounds 3]

SmolLM2-135M samples once it is tuned to MiniCoLA's training sentences, as `transfer` does it; it
labels with random adapters of rank 8, as speed does not depend on them. Where PyTorch sees a GPU,
both compute there. Of sampling, the device's part alone is timed, and then all that `transfer` does
with a sentence: text, tokens again and targets. On two cores, name some hundred sentences.
"""

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from train_speed import machine

from potstill.data.corpus import load_corpus
from potstill.decoder.adapter import save_adapter
from potstill.decoder.classifier import build_lora_classifier
from potstill.decoder.hub import BaseModel, find_base_model
from potstill.decoder.lora import lora_layers
from potstill.inference.decoder import DecoderClassifier
from potstill.training.distributed import process
from potstill.transfer.gpu_sampling import sample_blocks
from potstill.transfer.sampler import Sampler, load_sampler, max_tokens

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


def sample_on_device(sampler: Sampler, sentences: int, seed: int) -> int:
    """Sample sentences and their soft targets; return how many ended in time."""
    model = sampler.model
    blocks = sample_blocks(model, sentences, seed, 1.0, max_tokens(model))
    return sum(len(block.lengths) for block in blocks)


def sample_whole(sampler: Sampler, sentences: int, seed: int) -> int:
    """Sample sentences as `transfer` gets them; return how many ended in time."""
    return sum(1 for _ in sampler.sample(sentences, seed, 1.0))


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


def measure(base: str, sentences: int, labelled: int, rounds: int) -> dict[str, dict[str, float]]:
    """Return the figures of each part."""
    base_model = find_base_model(base)
    train = load_corpus("minicola").splits["train"].sentences
    figures = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        sampler = load_sampler(folder, base_model, train, epochs=1, seed=0)
        figures["sampling, soft targets, on the device"] = timed(
            lambda seed: sample_on_device(sampler, sentences, seed), rounds
        )
        whole = max(1, sentences // 8)
        figures["sampling, soft targets, as transfer gets them"] = timed(
            lambda seed: sample_whole(sampler, whole, seed), rounds
        )
        texts = [text for text, _ in sampler.sample(whole, 99, 1.0) if text]
        texts = list(itertools.islice(itertools.cycle(texts), labelled))
        labeller = teacher(base_model, folder)
        figures["labelling after every word"] = timed(
            lambda seed: len(labeller.word_logits(texts)), rounds
        )
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", default="smollm2", help="base decoder, as --gpt_variant names it")
    parser.add_argument("--sentences", type=int, default=262_144, help="to sample in a round")
    parser.add_argument("--labelled", type=int, default=400_000, help="to label in a round")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each part")
    parser.add_argument("--output", type=Path, default=RESULTS, help="JSON file to write")
    args = parser.parse_args()
    figures = measure(args.base, args.sentences, args.labelled, args.rounds)
    about = machine() | {"device": str(process().device)}
    args.output.write_text(json.dumps({"machine": about, "figures": figures}, indent=1) + "\n")
    print(f"{about.get('gpu', about['cpu'])}, median of {args.rounds} rounds (lowest, highest)\n")
    print("| | sentences/s | |\n|---|---:|---:|")
    for name, figure in figures.items():
        spread = f"{figure['lowest']:.0f} to {figure['highest']:.0f}"
        print(f"| {name} | {figure['rate']:.0f} | {spread} |")


if __name__ == "__main__":
    main()
