"""A worker process of train_speed.py: one competitor.

    python benchmarks/train_speed_workers.py COMPETITOR FOLDER_OF_THE_DECODER TIME_OF_THE_START

It prints a line of JSON after its first step, and one after every round; it works through a round
for every line of standard input.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path

import train_speed_competitors as competitors
from train_speed_competitors import device, draw_sentences, length_histogram

COMPETITORS = {
    "classic": "plain PyTorch loop, fp32, padded to 20 tokens, batch 128",
    "peft": "PEFT + Trainer, defaults (fp32, dynamic padding, batch 32)",
    "peft_tuned": "PEFT + Trainer, tuned (bf16 base, length grouping, batch 32)",
    "potstill": "potstill, batch 32",
    "ceiling": "linear layers alone, forward and input gradient, bf16",
    "pipeline": "transformers.pipeline, fp32, at its best batch size",
    "labels": "potstill",
    "student": "potstill, DistilRNN of the default shape, batch 64",
}
# Sentences per round: about ten seconds on two cores, a few on a GPU.
SENTENCES = {"classic": 128, "peft": 128, "peft_tuned": 256, "potstill": 1024, "ceiling": 512}
SENTENCES |= {"pipeline": 256, "labels": 1024, "student": 4096}
ON_GPU = {"classic": 1024, "peft": 256, "peft_tuned": 256, "potstill": 8192, "ceiling": 4096}
ON_GPU |= {"pipeline": 2048, "labels": 8192, "student": 8192}
OURS = ("potstill", "labels", "student")


def peak_memory() -> float:
    """Return the peak memory in GB: that of the GPU, else the process's largest resident size."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def run_worker(competitor: str, folder: Path, started: float) -> None:
    """Prepare a competitor, then work through a round for every line of standard input."""
    if competitor in OURS:
        os.environ["GOMP_SPINCOUNT"] = "10000"  # as potstill's own command line does
    prepare = {
        "classic": competitors.train_classic,
        "peft": lambda folder: competitors.train_peft(folder, tuned=False),
        "peft_tuned": lambda folder: competitors.train_peft(folder, tuned=True),
        "potstill": competitors.train_potstill,
        "ceiling": competitors.multiply_only,
        "pipeline": competitors.label_pipeline,
        "labels": competitors.label_potstill,
        "student": competitors.train_student,
    }
    import torch

    prepared = prepare[competitor](folder)
    synchronize = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None

    def work(sentences: list[list[int]]) -> None:
        prepared(sentences)
        synchronize()

    # One step first: it warms up, tells how long a user waits for it, and contains CoLA's longest
    # sentence, so that the peak of memory is that of an epoch.
    first_batch = draw_sentences(128 if competitor == "classic" else 32, 40_000, 0)
    first_batch[0] = list(range(10, 10 + max(map(int, length_histogram()))))
    work(first_batch)
    print(json.dumps({"first_step_s": time.time() - started}), flush=True)
    number = (ON_GPU if device() == "cuda" else SENTENCES)[competitor]
    for line in sys.stdin:
        sentences = draw_sentences(number, 40_000, int(line))
        round_started = time.perf_counter()
        work(sentences)
        rate = len(sentences) / (time.perf_counter() - round_started)
        print(json.dumps({"rate": rate, "peak_gb": peak_memory()}), flush=True)


if __name__ == "__main__":
    run_worker(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]))
