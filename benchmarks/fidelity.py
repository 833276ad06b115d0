"""Does the fast path compute the same: 50 steps against fp32, and dev MCC over three seeds.

    python benchmarks/fidelity.py [--steps 50] [--seeds 1 2 3] [--decoder smollm2]

The first part trains the same weights on the same MiniCoLA batches three times: by transformers'
own modules in fp32, by the same in bf16, and by potstill in bf16. The second differs from the first
by the noise of bf16; potstill should differ by no more. The second part tunes by `potstill LoRA` in
both precisions. About half an hour on two cores.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from potstill.data.batching import LabelledBatch, LabelledDataset, length_batches
from potstill.data.corpus import load_corpus
from potstill.decoder.classifier import MICROBATCH_TOKENS, Classifier, build_lora_classifier, encode
from potstill.decoder.hub import find_base_model
from potstill.files import write_json
from potstill.settings import ResolvedTrainSettings
from potstill.training.checkpoint import Checkpoint
from potstill.training.loop import train
from potstill.training.losses import LossFunction
from potstill.training.optim import lr_factor
from potstill.training.precision import cast_frozen_to_bf16

HERE = Path(__file__).parent
PATHS = ("transformers, fp32", "transformers, bf16", "potstill, bf16")


def losses(path: str, decoder: str, steps: int) -> list[float]:
    """Return the training loss of each step."""
    base_model = find_base_model(decoder)
    tokenizer, settings = base_model.tokenizer(), ResolvedTrainSettings(lr=6e-4)
    split = load_corpus("minicola").splits["train"]
    split = split.take(list(range(steps * settings.batch_size)))
    tokens, _ = encode(tokenizer, split.sentences, 128, tokenizer.bos_token_id)
    dataset = LabelledDataset(tokens, split.labels)
    torch.manual_seed(0)
    model = build_lora_classifier(base_model.base(), 2, rank=4, alpha=8)
    if "bf16" in path:
        cast_frozen_to_bf16(model.base)
    parts: list[tuple[int, float]] = []  # sentences and their mean loss, in the order of the steps

    def loss_function(logits: Tensor, batch: LabelledBatch) -> Tensor:
        loss = F.cross_entropy(logits, batch.labels)
        parts.append((len(batch), float(loss.detach())))
        return loss

    if path.startswith("potstill"):
        with tempfile.TemporaryDirectory() as scratch:
            train(
                model,
                dataset,
                loss_function,
                {},
                settings=settings,
                epochs=1,
                seed=0,
                checkpoint=Checkpoint(Path(scratch) / "state", {}),
                report=lambda metrics: None,
                microbatch_tokens=MICROBATCH_TOKENS,
            )
    else:
        train_plainly(model.train(), dataset, loss_function, settings)
    size = settings.batch_size
    ends = np.cumsum([n for n, _ in parts]) - 1
    return [
        sum(n * loss for (n, loss), end in zip(parts, ends, strict=True) if end // size == step)
        / size
        for step in range(steps)
    ]


def train_plainly(
    model: Classifier,
    dataset: LabelledDataset,
    loss_function: LossFunction,
    settings: ResolvedTrainSettings,
) -> None:
    """Train the same epoch by transformers' modules, autograd and an unfused optimizer."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in parameters if p.ndim > 1]
    others = [p for p in parameters if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings.lr, fused=False)
    batches = length_batches([len(t) for t in dataset.tokens], settings.batch_size, seed=0, epoch=1)
    for step, index in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * lr_factor(step, len(batches), settings.warmup)
        batch = dataset.batch(index.tolist())
        hidden = model.plain_last_hidden(batch.input_ids, batch.lengths)
        loss_function(model.score(hidden.float()), batch).backward()
        torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
        optimizer.step()
        optimizer.zero_grad()


def dev_mcc(precision: str, seed: int, decoder: str) -> dict[str, float]:
    """Return the dev MCC of the chosen epoch and of the last, by the command line."""
    with tempfile.TemporaryDirectory() as scratch:
        arguments = ["LoRA", str(seed), "--data", "minicola", "--gpt_variant", decoder]
        arguments += ["--precision", precision, "--model_path", f"{scratch}/run"]
        arguments += ["--plots_path", f"{scratch}/plots"]
        command = [sys.executable, "-m", "potstill", *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        results = json.loads(Path(scratch, "run", "results.json").read_text())
    return {"chosen": results["chosen"]["dev"]["mcc"], "last": results["last"]["dev"]["mcc"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3])
    parser.add_argument("--decoder", default="smollm2")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "fidelity.json")
    arguments = parser.parse_args()
    curves = {path: losses(path, arguments.decoder, arguments.steps) for path in PATHS}
    exact = np.array(curves[PATHS[0]])
    print("| loss at step | " + " | ".join(PATHS) + " |\n|---:|---:|---:|---:|")
    for step in range(arguments.steps // 5 - 1, arguments.steps, arguments.steps // 5):
        print(f"| {step + 1} | " + " | ".join(f"{curves[path][step]:.4f}" for path in PATHS) + " |")
    distance = {p: float(np.abs(np.array(curves[p]) - exact).mean()) for p in PATHS}
    print(
        "| mean distance from fp32 | "
        + " | ".join(f"{distance[path]:.4f}" for path in PATHS)
        + " |\n"
    )
    report: dict = {"curves": curves, "distance": distance, "dev_mcc": {}}
    write_json(arguments.output, report)
    print("| dev MCC, chosen epoch (last) | bf16 | fp32 |\n|---|---:|---:|", flush=True)
    for seed in arguments.seeds:
        both = {p: dev_mcc(p, seed, arguments.decoder) for p in ("bf16", "fp32")}
        report["dev_mcc"][str(seed)] = both
        cells = [f"{both[p]['chosen']:.3f} ({both[p]['last']:.3f})" for p in both]
        print(f"| SR {seed} | {' | '.join(cells)} |", flush=True)
        write_json(arguments.output, report)
    if arguments.seeds:
        means = [
            np.mean([report["dev_mcc"][str(s)][p]["chosen"] for s in arguments.seeds])
            for p in ("bf16", "fp32")
        ]
        print(f"| mean | {means[0]:.3f} | {means[1]:.3f} |")


if __name__ == "__main__":
    main()
