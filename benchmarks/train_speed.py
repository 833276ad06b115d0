"""LoRA training, teacher labelling and student training against what a user would pick instead.

    python benchmarks/train_speed.py [gpt2|smollm2] [--rounds 5]

Every side runs in a process of its own; the rounds alternate between them, one side computing at a
time, and the table gives medians. GPT-2's weights are random (speed does not depend on them),
SmolLM2's are real; sentences are random tokens with the lengths of CoLA's. Where PyTorch sees a
GPU, all sides compute there.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from train_speed_workers import SIDES

HERE = Path(__file__).parent
WORKERS = HERE / "train_speed_workers.py"
TRAINING = ("classic", "peft", "peft_tuned", "potstill", "ceiling")
LABELLING = ("pipeline", "labels")


def model_folder(name: str, scratch: Path) -> Path:
    """Local folder of the decoder to train."""
    if name == "smollm2":
        from potstill.decoder.hub import smollm2

        return smollm2()
    from transformers import GPT2Config, GPT2Model

    folder = scratch / "gpt2"
    # No dropout in the base: potstill tunes without, so no side shall spend time on it.
    GPT2Model(GPT2Config(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)).save_pretrained(folder)
    return folder


def measure(name: str, sides: list[str], rounds: int) -> dict:
    """Figures of every side: medians over the rounds."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = model_folder(name, Path(scratch))
        workers, results = {}, {}
        for side in sides:
            command = [sys.executable, WORKERS, side, folder, str(time.time())]
            quiet = os.environ | {
                "HF_HUB_OFFLINE": "1",
                "TRANSFORMERS_VERBOSITY": "error",
                "TQDM_DISABLE": "1",
            }
            pipe = subprocess.PIPE
            workers[side] = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=quiet)
            results[side] = {"rates": []} | read_line(workers[side])
        for number in range(1, rounds + 1):
            for side, worker in workers.items():
                worker.stdin.write(f"{number}\n")
                worker.stdin.flush()
                answer = read_line(worker)
                results[side]["rates"].append(round(answer["rate"], 2))
                results[side]["peak_gb"] = round(answer["peak_gb"], 3)
                print(f"  round {number}, {side}: {answer['rate']:.1f}/s", file=sys.stderr)
        for worker in workers.values():
            worker.stdin.close()
            worker.wait()
    for result in results.values():
        result["rate"] = statistics.median(result["rates"])
    return results


def read_line(worker: subprocess.Popen) -> dict:
    """The next line of JSON from a side; what else its libraries print is passed over."""
    for line in worker.stdout:
        if line.startswith('{"'):  # Trainer prints dicts of its own
            return json.loads(line)
    raise RuntimeError("a side of the benchmark ended early; its error stands above")


def table(name: str, results: dict) -> str:
    """The figures as a Markdown table."""
    lines = [f"**{name}**, sentences/s, median of {len(results['potstill']['rates'])} rounds", ""]
    lines += ["| training | sentences/s | potstill is | first step | peak memory |"]
    lines += ["|---|---:|---:|---:|---:|"]
    ours = results["potstill"]["rate"]
    for side in TRAINING:
        r = results[side]
        ratio = (
            f"{100 * ours / r['rate']:.0f} %" if side == "ceiling" else f"{ours / r['rate']:.2f}×"
        )
        extra = f"{r['first_step_s']:.1f} s | {r['peak_gb']:.2f} GB"
        extra = " | " if side == "ceiling" else extra
        lines.append(f"| {SIDES[side]} | {r['rate']:.1f} | {ratio} | {extra} |")
    lines += ["", "| labelling, no gradients | sentences/s | potstill is |", "|---|---:|---:|"]
    for side in LABELLING:
        r = results[side]
        ratio = f"{results['labels']['rate'] / r['rate']:.2f}×"
        lines.append(f"| {SIDES[side]} | {r['rate']:.1f} | {ratio} |")
    lines += ["", f"Student: {SIDES['student']}: {results['student']['rate']:.0f} sentences/s."]
    return "\n".join(lines)


def machine() -> dict:
    cpu = platform.processor() or "unknown"
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            x.split(":")[1].strip() for x in info.read_text().splitlines() if "model name" in x
        ]
        cpu = names[0] if names else cpu
    libraries = ("torch", "transformers", "peft", "accelerate", "numpy")
    versions = {name: importlib.metadata.version(name) for name in libraries}
    about = {"cpu": cpu, "cores": os.cpu_count(), "python": platform.python_version()} | versions
    if torch.cuda.is_available():
        about["gpu"] = torch.cuda.get_device_name()
    return about


def help_seconds() -> float:
    """Median time of `potstill --help`."""
    times = []
    for _ in range(5):
        started = time.perf_counter()
        command = [sys.executable, "-m", "potstill", "--help"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=["gpt2", "smollm2"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sides", nargs="*", default=list(SIDES))
    parser.add_argument("--output", type=Path, default=HERE / "results" / "train_speed.json")
    arguments = parser.parse_args()
    report = {"machine": machine(), "help_s": round(help_seconds(), 3)}
    print(json.dumps(report))
    for name in arguments.models:
        report[name] = measure(name, arguments.sides, arguments.rounds)
        if set(arguments.sides) == set(SIDES):
            print(f"\n{table(name, report[name])}", flush=True)
        arguments.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
