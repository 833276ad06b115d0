"""Requests a second of `potstill serve` on this machine, compared with a plain FastAPI handler.

    python benchmarks/serve_load.py [--model_path FOLDER] [--seconds 10] [--total 100000]

Three servers run one after the other, each in a process of its own, around the same classifier:
serve as it is, serve without batching (--max_batch 1), and a FastAPI handler that calls
`predict_proba` for each request, in its thread pool. 1, 8 and 64 clients ask for one sentence at a
time, over connections that are kept. Then serve answers --total requests of 64 clients, and its
memory is read in between. The clients run in a second process, which takes a share of the cores. On
a machine that is busy with other things, the processor time of a request is what can be compared.
"""

import argparse
import asyncio
import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from potstill.data.corpus import load_corpus
from potstill.files import write_json
from potstill.pretrained import COLA

CLIENTS = (1, 8, 64)
PLAIN = """
import sys
import fastapi, pydantic, uvicorn
from pathlib import Path
from potstill.recipes.predict import load_fast
classifier = load_fast(Path(sys.argv[1]))
app = fastapi.FastAPI()
class Body(pydantic.BaseModel):
    text: str
@app.post("/predict")
def predict(body: Body):
    row = classifier.predict_proba([body.text])[0].tolist()
    labels = classifier.classes_.tolist()
    return {"label": labels[row.index(max(row))], "probabilities": dict(zip(labels, row))}
uvicorn.run(app, port=int(sys.argv[2]), log_level="critical", access_log=False)
"""
FIGURES = ("requests per second", "processor ms per request", "p50 ms", "p99 ms")
SERVERS = ("serve", "serve without batching", "plain handler")


def start(kind: str, model: Path, port: int) -> subprocess.Popen[bytes]:
    """Start a server, and return when it answers."""
    if kind == "plain handler":
        command = [sys.executable, "-c", PLAIN, str(model), str(port)]
    else:
        command = [sys.executable, "-m", "potstill", "serve", "--model_path", str(model)]
        command += ["--port", str(port)]
        if kind == "serve without batching":
            command += ["--max_batch", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while True:
        try:
            asyncio.run(ask_many(port, ["A first text."], clients=1, total=1))
            return process
        except OSError:
            if time.monotonic() > deadline or process.poll() is not None:
                process.kill()
                raise
            time.sleep(0.2)


async def ask_many(
    port: int,
    sentences: list[str],
    *,
    clients: int,
    total: int | None = None,
    seconds: float | None = None,
) -> tuple[list[float], int]:
    """Return the seconds that each request took, and the number of errors; end after `total`
    requests or after `seconds`."""
    bodies = [json.dumps({"text": sentence}).encode() for sentence in sentences]
    requests = [
        b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%s" % (len(body), body)
        for body in bodies
    ]
    times: list[float] = []
    started = errors = 0
    end = time.perf_counter() + seconds if seconds else float("inf")

    async def client() -> None:
        nonlocal started, errors
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (total is None or started < total) and time.perf_counter() < end:
            request = requests[started % len(requests)]
            started += 1
            begun = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            body = await reader.readexactly(int(length[1]) if length else 0)
            times.append(time.perf_counter() - begun)
            errors += not (head.startswith(b"HTTP/1.1 200") and b'"label"' in body)
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return times, errors


def resident_megabytes(process: subprocess.Popen[bytes]) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", status)
    return int(found[1]) / 1000 if found else float("nan")


def processor_seconds(process: subprocess.Popen[bytes]) -> float:
    """Return the processor time that a process has taken so far, all threads together."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(times: list[float], errors: int, seconds: float, processor: float) -> dict[str, Any]:
    p50, p99 = np.percentile(times, (50, 99)) * 1000
    return {
        "requests": len(times),
        "errors": errors,
        "requests per second": round(len(times) / seconds, 1),
        "processor ms per request": round(1000 * processor / len(times), 3),
        "p50 ms": round(float(p50), 2),
        "p99 ms": round(float(p99), 2),
    }


def measure_servers(
    model: Path, port: int, sentences: list[str], rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """Return a row for each server, number of clients and round."""
    rows = []
    for number in range(rounds):  # in turn, so that a machine that slows down slows all
        for kind in SERVERS:
            process = start(kind, model, port)
            try:
                asyncio.run(ask_many(port, sentences, clients=8, seconds=1))
                for clients in CLIENTS:
                    begun, spent = time.perf_counter(), processor_seconds(process)
                    times, errors = asyncio.run(
                        ask_many(port, sentences, clients=clients, seconds=seconds)
                    )
                    took = time.perf_counter() - begun
                    row = measure(times, errors, took, processor_seconds(process) - spent)
                    rows.append({"server": kind, "clients": clients, "round": number} | row)
                    print(rows[-1], flush=True)
            finally:
                process.terminate()
                process.wait(timeout=30)
    return rows


def measure_memory(model: Path, port: int, sentences: list[str], total: int) -> dict[str, Any]:
    """Return errors and memory over `total` requests of 64 clients."""
    process = start("serve", model, port)
    try:
        memory, errors, answered, begun = [], 0, 0, time.perf_counter()
        while answered < total:
            part = min(total - answered, max(total // 10, 1))
            times, failed = asyncio.run(ask_many(port, sentences, clients=64, total=part))
            answered += len(times)
            errors += failed
            memory.append(round(resident_megabytes(process), 1))
            print(f"{answered} requests, {errors} errors, {memory[-1]} MB", flush=True)
        seconds = round(time.perf_counter() - begun, 1)
        return {"requests": answered, "errors": errors, "seconds": seconds, "MB": memory}
    finally:
        process.terminate()
        process.wait(timeout=30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model_path", type=Path, default=COLA)
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5, help="of each number of clients")
    parser.add_argument("--total", type=int, default=100_000, help="requests for the memory")
    parser.add_argument("--output", type=Path, help="file for the figures, as JSON")
    args = parser.parse_args()
    sentences = load_corpus("minicola").splits["dev"].sentences
    rows = measure_servers(args.model_path, args.port, sentences, args.rounds, args.seconds)
    for clients in CLIENTS:
        for kind in SERVERS:
            own = [row for row in rows if (row["server"], row["clients"]) == (kind, clients)]
            if own:
                middle = {
                    key: float(np.median([row[key] for row in own]))
                    for key in (
                        "requests per second",
                        "processor ms per request",
                        "p50 ms",
                        "p99 ms",
                    )
                }
                print(f"{clients:>3} clients, {kind:<24} {middle}")
    endurance = measure_memory(args.model_path, args.port, sentences, args.total)
    if args.output:
        machine = {"system": platform.platform(), "cores": len(os.sched_getaffinity(0))}
        write_json(args.output, {"machine": machine, "load": rows, "memory": endurance})


if __name__ == "__main__":
    main()
