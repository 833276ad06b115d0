"""The whole chain, from labelled data to a finished student, and how long each stage takes.

    python benchmarks/chain.py --data FOLDER_OF_COLA [--sampled 4500000] [--edited 500000]
        [--folder runs/chain] [--epochs 2] [--processes 3] [-- FLAGS OF LoRA]

It runs the commands that a user would type, one after the other: two teachers, their average, a
transfer set, the student and its 8-bit export. On a GPU it is to take ten minutes with five million
sentences; on two cores name some thousands. `--processes` make the set together: much of that is
work of the processor, and they share a GPU. Interrupted, the same command goes on with the stage
that was begun. The table names each stage with its seconds; the process's start is part of them.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from train_speed import machine

from potstill.files import read_json, write_json

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Stage:
    """A command of the chain, run by as many `processes`."""

    title: str
    command: list[str]
    processes: int = 1


def stages(arguments: argparse.Namespace) -> list[Stage]:
    """Return the commands, in their order."""
    folder, data = arguments.folder, ["--data", arguments.data]
    teachers = [str(folder / f"LoRA-{seed}") for seed in arguments.seeds]
    teacher, transfer_set, student = (
        str(folder / n) for n in ("LoRA-average", "transfer", "student")
    )
    lora = ["--LoRA_rank", "8", "--LoRA_dropout", "0.1", *arguments.flags]
    # Soft targets are for students that start from random weights.
    set_flags = ["--no_soft_targets"]
    sizes = ["--sampled", str(arguments.sampled), "--edited", str(arguments.edited)]
    distil = ["distil", "1", "--teacher", teacher, "--transfer_set", transfer_set]
    if arguments.epochs:
        distil += ["--epochs", str(arguments.epochs)]
    tuned = [
        Stage(f"teacher, SR {seed}", ["LoRA", str(seed), *data, *lora, "--output", output])
        for seed, output in zip(arguments.seeds, teachers, strict=True)
    ]
    return [
        *tuned,
        Stage("their average", ["average", *teachers, "--output", teacher]),
        Stage(
            f"transfer set, {arguments.sampled + arguments.edited:,} sentences",
            ["transfer", "1", "--teacher", teacher, *sizes, "--output", transfer_set, *set_flags],
            arguments.processes,
        ),
        Stage("student", [*distil, "--output", student]),
        Stage(
            "export, 8-bit",
            ["export", "--int8", "--model_path", student, "--output", str(folder / "onnx")],
        ),
    ]


def run(folder: Path, chain: list[Stage]) -> dict[str, float]:
    """Run what is not done yet; return the seconds of each stage, of earlier calls too."""
    file = folder / "chain.json"
    seconds: dict[str, float] = read_json(file)["seconds"] if file.is_file() else {}
    done: list[str] = read_json(file)["done"] if file.is_file() else []
    for stage in chain:
        if stage.title in done:
            continue
        print(f"-- {stage.title}: potstill {' '.join(stage.command)}", flush=True)
        started = time.perf_counter()
        try:
            launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(stage.processes)]
            python = [sys.executable, *(launcher if stage.processes > 1 else [])]
            subprocess.run([*python, str(ROOT / "run.py"), *stage.command], check=True)
            done.append(stage.title)
        finally:
            before = seconds.get(stage.title, 0.0)
            seconds[stage.title] = round(before + time.perf_counter() - started, 1)
            write_json(file, {"seconds": seconds, "done": done})
    return seconds


def table(seconds: dict[str, float]) -> str:
    """Return the stages and their seconds in Markdown."""
    lines = ["| stage | seconds |", "|---|---:|"]
    lines += [f"| {title} | {value:,.0f} |" for title, value in seconds.items()]
    total = sum(seconds.values())
    return "\n".join([*lines, f"| in all | {total:,.0f} ({total / 60:.1f} minutes) |"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="auto", help="CoLA's folder, or other labelled data")
    parser.add_argument("--folder", type=Path, default=Path("runs/chain"))
    parser.add_argument("--seeds", type=int, nargs=2, default=[4, 5], help="of the two teachers")
    parser.add_argument("--sampled", type=int, default=4_500_000)
    parser.add_argument("--edited", type=int, default=500_000)
    parser.add_argument("--epochs", type=int, help="of the student; default: distil's own")
    parser.add_argument("--processes", type=int, default=1, help="that make the transfer set")
    parser.add_argument("--output", type=Path, help="file for the figures, as JSON")
    parser.add_argument("flags", nargs="*", help="after --, flags of LoRA, such as --gpt_variant")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    seconds = run(arguments.folder, stages(arguments))
    print(table(seconds))
    scores = json.loads((arguments.folder / "student/results.json").read_text())["chosen"]
    mcc = {name: round(split["mcc"], 3) for name, split in scores.items()}
    print("\nMCC of the student: " + ", ".join(f"{k} {v}" for k, v in mcc.items() if k != "train"))
    if arguments.output:
        sentences = {"sampled": arguments.sampled, "edited": arguments.edited}
        write_json(
            arguments.output,
            {"machine": machine(), "sentences": sentences, "seconds": seconds, "mcc": mcc},
        )


if __name__ == "__main__":
    main()
