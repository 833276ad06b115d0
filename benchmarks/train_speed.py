"""LoRA training, teacher labelling and student training against what a user would pick instead.

    python benchmarks/train_speed.py [gpt2|smollm2] [--rounds 5]

Every competitor runs in a process of its own. The rounds alternate between them, one computing at a
time, and the table gives medians. GPT-2's weights are random (speed does not depend on them),
SmolLM2's are real; sentences are random tokens with the lengths of CoLA's. Where PyTorch sees a
GPU, all compute there.
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
from train_speed_workers import COMPETITORS

HERE = Path(__file__).parent
WORKERS = HERE / "train_speed_workers.py"
TRAINING = ("classic", "peft", "peft_tuned", "potstill", "ceiling")
LABELLING = ("pipeline", "labels")


def model_folder(name: str, scratch: Path) -> Path:
    """Return the local folder of the decoder to train."""
    if name == "smollm2":
        from potstill.decoder.hub import smollm2

        return smollm2()
    from transformers import GPT2Config, GPT2Model

    folder = scratch / "gpt2"
    # No dropout in the base: potstill tunes without it, so nobody should spend time on it.
    GPT2Model(GPT2Config(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)).save_pretrained(folder)
    return folder


def measure(name: str, competitors: list[str], rounds: int) -> dict:
    """Return the figures of every competitor: medians over the rounds."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = model_folder(name, Path(scratch))
        workers, results = {}, {}
        for competitor in competitors:
            command = [sys.executable, WORKERS, competitor, folder, str(time.time())]
            quiet = os.environ | {
                "HF_HUB_OFFLINE": "1",
                "TRANSFORMERS_VERBOSITY": "error",
                "TQDM_DISABLE": "1",
            }
            pipe = subprocess.PIPE
            workers[competitor] = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, text=True, env=quiet
            )
            results[competitor] = {"rates": []} | read_line(workers[competitor])
        for number in range(1, rounds + 1):
            for competitor, worker in workers.items():
                worker.stdin.write(f"{number}\n")
                worker.stdin.flush()
                answer = read_line(worker)
                results[competitor]["rates"].append(round(answer["rate"], 2))
                results[competitor]["peak_gb"] = round(answer["peak_gb"], 3)
                print(f"  round {number}, {competitor}: {answer['rate']:.1f}/s", file=sys.stderr)
        for worker in workers.values():
            worker.stdin.close()
            worker.wait()
    for result in results.values():
        result["rate"] = statistics.median(result["rates"])
    return results


def read_line(worker: subprocess.Popen) -> dict:
    """Return the next line of JSON from a worker, skipping what its libraries print."""
    for line in worker.stdout:
        if line.startswith('{"'):  # Trainer prints dicts of its own
            return json.loads(line)
    raise RuntimeError("a worker ended early; its error is above")


def table(name: str, results: dict) -> str:
    """Return the figures as a Markdown table."""
    lines = [f"**{name}**, sentences/s, median of {len(results['potstill']['rates'])} rounds", ""]
    lines += ["| training | sentences/s | potstill is | first step | peak memory |"]
    lines += ["|---|---:|---:|---:|---:|"]
    ours = results["potstill"]["rate"]
    for competitor in TRAINING:
        r = results[competitor]
        ratio = (
            f"{100 * ours / r['rate']:.0f} %"
            if competitor == "ceiling"
            else f"{ours / r['rate']:.2f}×"
        )
        extra = f"{r['first_step_s']:.1f} s | {r['peak_gb']:.2f} GB"
        extra = " | " if competitor == "ceiling" else extra
        lines.append(f"| {COMPETITORS[competitor]} | {r['rate']:.1f} | {ratio} | {extra} |")
    lines += ["", "| labelling, no gradients | sentences/s | potstill is |", "|---|---:|---:|"]
    for competitor in LABELLING:
        r = results[competitor]
        ratio = f"{results['labels']['rate'] / r['rate']:.2f}×"
        lines.append(f"| {COMPETITORS[competitor]} | {r['rate']:.1f} | {ratio} |")
    lines += [
        "",
        f"Student: {COMPETITORS['student']}: {results['student']['rate']:.0f} sentences/s.",
    ]
    return "\n".join(lines)


def machine() -> dict:
    """Return the hardware and the versions of the libraries."""
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
    """Return the median time of `potstill --help`."""
    times = []
    for _ in range(5):
        started = time.perf_counter()
        command = [sys.executable, "-m", "potstill", "--help"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = ["gpt2", "smollm2"]
    parser.add_argument("models", nargs="*", default=names, help="gpt2, smollm2 or both")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each competitor")
    parser.add_argument(
        "--competitors", nargs="*", default=list(COMPETITORS), help="default: all, for the table"
    )
    output = HERE / "results" / "train_speed.json"
    parser.add_argument("--output", type=Path, default=output, help="file for the figures")
    arguments = parser.parse_args()
    report = {"machine": machine(), "help_s": round(help_seconds(), 3)}
    print(json.dumps(report))
    for name in arguments.models:
        report[name] = measure(name, arguments.competitors, arguments.rounds)
        if set(arguments.competitors) == set(COMPETITORS):
            print(f"\n{table(name, report[name])}", flush=True)
        arguments.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
