"""Whether a transfer set of twenty million sentences fits: disk, time to open, memory to train.

    python benchmarks/transfer_set_scale.py [--sentences 20000000] [--steps 300] [--folder DIR]

The set is made up: sentences of random words, about as many as sampled sentences of CoLA's kind
have, drawn as often as words of English are (Zipf), with random logits of the whole and after every
word, so that they compress no better than real ones. It has no next-token probabilities. Each stage
then runs in a process of its own, and its peak of resident memory is reported: opening; choosing
sentences and writing them in a student's tokens; and training, which takes `--steps` steps of an
epoch as a language model and as many of distilling, from the first block and, to show that memory
does not grow, from the middle and the end of the epoch.
"""

import argparse
import itertools
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from potstill.files import write_json
from potstill.transfer.sentences import SourceKind
from potstill.transfer.shards import DESCRIPTION, list_shards, shard_size_of, write_table
from potstill.transfer.table import METADATA, list_column, shard_schema

RESULTS = Path(__file__).parent / "results" / "transfer_set_scale.json"
VOCABULARY = 50_000  # words
WORDS = 8.4  # of a sentence, on average; CoLA's sentences have 7.7, sampled ones 8.4
CLASSES = 2
BATCH_SIZE = 64


def write_words(rng: np.random.Generator) -> np.ndarray:
    """Return made-up words, as long as those of English."""
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    lengths = rng.integers(2, 9, VOCABULARY)
    return np.array(["".join(rng.choice(letters, n)) for n in lengths])


def make_shard(words: np.ndarray, rows: int, kind: SourceKind, seed: int) -> pa.Table:
    """Return a shard of made-up sentences."""
    rng = np.random.default_rng(seed)
    counts = np.maximum(1, rng.poisson(WORDS, rows))
    ranks = np.minimum(rng.zipf(1.3, counts.sum()) - 1, VOCABULARY - 1)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    spelt = words[ranks]
    text = [" ".join(spelt[a:b]) for a, b in itertools.pairwise(offsets)]
    # A walk, as a teacher's opinion of a longer and longer beginning is.
    word_logits = rng.normal(scale=2, size=(int(offsets[-1]), CLASSES)).astype(np.float16)
    logits = word_logits[offsets[1:] - 1]
    edited = kind is SourceKind.EDITED
    columns = {
        "sentence": pa.array(text, pa.string()),
        "source": pa.array(["edited:swap" if edited else "sampled"] * rows, pa.string()),
        "parent": pa.array(text[::-1] if edited else [""] * rows, pa.string()),
        "logits": pa.FixedSizeListArray.from_arrays(pa.array(logits.ravel()), CLASSES),
        "word_logits": list_column(word_logits.ravel(), CLASSES * offsets, pa.float16()),
    }
    labelled = np.bincount(logits.argmax(1), minlength=CLASSES).tolist()
    metadata = {"labelled": labelled, "without_words": 0, "without_top_k": None}
    schema = shard_schema(CLASSES, top_k=False)
    return pa.table(columns, schema.with_metadata({METADATA: json.dumps(metadata)}))


def make_set(folder: Path, sentences: int) -> None:
    """Write a set, three quarters of it sampled and the others edited; go on with one."""
    numbers = {"own": 0, "sampled": sentences - sentences // 4, "edited": sentences // 4}
    description: dict[str, Any] = {
        "teacher": {"path": "runs/LoRA-1", "sha256": "a" * 64, "title": "none"},
        "labels": ["unacceptable", "acceptable"],
        "sentences": numbers,
        "shard_size": shard_size_of(numbers),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / DESCRIPTION, description)
    words = write_words(np.random.default_rng(0))
    for seed, shard in enumerate(list_shards(folder, description)):
        if not shard.path.is_file():
            write_table(shard.path, make_shard(words, shard.size, shard.kind, seed))


def open_set(folder: Path) -> dict[str, float]:
    """Open the set; return the seconds, without those of importing."""
    from potstill.transfer.dataset import read_transfer_set

    started = time.perf_counter()
    transfer_set = read_transfer_set(folder)
    seconds = time.perf_counter() - started
    return {"seconds": round(seconds, 3), "sentences": len(transfer_set)}


def tokenise(folder: Path, tokens: Path) -> dict[str, float]:
    """Do what `distil` does with a set before it trains."""
    from potstill.distillation.tokenise import tokenise_set
    from potstill.recipes.distil import TOKENIZER_SENTENCES
    from potstill.student.tokenizer import train_tokenizer
    from potstill.transfer.dataset import read_transfer_set

    seconds = {}
    started = time.perf_counter()
    selection = read_transfer_set(folder).select(without=["none of these"])
    seconds["choosing"] = time.perf_counter() - started
    tokenizer = train_tokenizer(selection.sentences(TOKENIZER_SENTENCES), 8000)
    tokens.mkdir(exist_ok=True)
    tokenizer.save(str(tokens.with_suffix(".json")))
    seconds["vocabulary"] = time.perf_counter() - started - sum(seconds.values())
    digest = selection.transfer_set.sha256()
    seconds["hash"] = time.perf_counter() - started - sum(seconds.values())
    tokenise_set(
        tokens,
        selection,
        tokenizer,
        set_sha256=digest,
        vocabulary=[],
        words=True,
        max_length=128,
    )
    seconds["tokens"] = time.perf_counter() - started - sum(seconds.values())
    return {name: round(value, 1) for name, value in seconds.items()} | {"chosen": len(selection)}


def train(folder: Path, tokens: Path, steps: int) -> dict[str, float]:
    """Take steps of pretraining and of distilling at several places of an epoch."""
    import torch
    from tokenizers import Tokenizer

    from potstill.data.batching import LabelledDataset
    from potstill.distillation.dataset import labelled_dataset
    from potstill.distillation.losses import distillation_loss
    from potstill.distillation.pretrain import next_token_loss
    from potstill.distillation.streamed import StreamedDataset
    from potstill.distillation.tokenise import tokenise_set
    from potstill.settings import DistilSettings, ResolvedTrainSettings
    from potstill.student.heads import NextTokenHead
    from potstill.student.model import DistilRNN, StudentConfig
    from potstill.student.tokenizer import encode
    from potstill.training.optim import adamw, update
    from potstill.transfer.dataset import read_transfer_set

    tokenizer = Tokenizer.from_file(str(tokens.with_suffix(".json")))
    transfer_set = read_transfer_set(folder)
    selection = transfer_set.select(without=["none of these"])
    tokenised = tokenise_set(
        tokens,
        selection,
        tokenizer,
        set_sha256=transfer_set.sha256(),
        vocabulary=[],
        words=True,
        max_length=128,
    )
    own = ["a labelled sentence"] * 8000
    labelled = labelled_dataset(
        tokenizer,
        own,
        LabelledDataset(encode(tokenizer, own, 128), [0, 1] * 4000),
        teacher_logits=torch.zeros(len(own), CLASSES),
        word_logits=[np.zeros((3, CLASSES), np.float32)] * len(own),
        max_length=128,
    )
    started = time.perf_counter()
    streamed = StreamedDataset(labelled, tokenised)
    opened = time.perf_counter() - started
    config = StudentConfig("gru", 256, 128, 2, vocab_size=8000, classes=CLASSES, word_head=True)
    student = DistilRNN(config).train()
    head = NextTokenHead(DistilRNN(StudentConfig("gru", 256, 128, 1, vocab_size=8000, classes=2)))
    settings = ResolvedTrainSettings(batch_size=BATCH_SIZE)
    results: dict[str, float] = {"opened": round(opened, 1)}
    text = streamed.text().longer()
    for name, dataset, model in (("language model", text, head), ("distilling", streamed, student)):
        optimizer = adamw(model, settings)
        parameters = list(model.parameters())
        started = time.perf_counter()
        batches = dataset.epoch_batches(BATCH_SIZE, seed=1, epoch=1)
        results[f"{name}, planned"] = round(time.perf_counter() - started, 1)
        for place in (0.0, 0.5, 1.0):
            first = int(place * (len(batches) - steps))
            started, reading, done = time.perf_counter(), 0.0, 0
            for indices in batches[first : first + steps]:
                asked = time.perf_counter()
                batch: Any = dataset.batch(indices.tolist())
                reading += time.perf_counter() - asked
                if name == "distilling":
                    output = model(batch.input_ids, batch.lengths)
                    loss = distillation_loss(output, batch, DistilSettings())
                else:
                    loss = next_token_loss(head, batch)
                loss.backward()
                update(optimizer, parameters, 1.0)
                done += len(indices)
            seconds = time.perf_counter() - started
            results[f"{name}, sentences/s at {place:.0%}"] = round(done / seconds, 1)
            results[f"{name}, share of reading at {place:.0%}"] = round(reading / seconds, 3)
        del batches
    return results


def _measured(work: Callable[[], dict[str, float]], connection: Any) -> None:
    result = work()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    connection.send(result | {"peak GiB": round(peak, 3)})


def in_a_process(work: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Return what `work` returns, and the peak of its process's resident memory in GiB."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_measured, args=(work, theirs))
    process.start()
    theirs.close()
    result: dict[str, float] = ours.recv()
    process.join()
    return result


def measure(folder: Path, sentences: int, steps: int) -> dict[str, dict[str, float]]:
    """Return the figures of each stage."""
    whole, tokens = folder / "set", folder / "tokens"
    started = time.perf_counter()
    make_set(whole, sentences)
    seconds = time.perf_counter() - started
    size = sum(file.stat().st_size for file in whole.iterdir())
    figures = {
        "disk": {
            "GB": round(size / 1e9, 3),
            "bytes a sentence": round(size / sentences, 1),
            "seconds to make": round(seconds, 1),
        }
    }
    figures["open"] = in_a_process(partial(open_set, whole))
    figures["choose and tokenise"] = in_a_process(partial(tokenise, whole, tokens))
    size = sum(file.stat().st_size for file in tokens.iterdir())
    figures["tokens"] = {"GB": round(size / 1e9, 3)}
    figures["train"] = in_a_process(partial(train, whole, tokens, steps))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sentences", type=int, default=20_000_000)
    parser.add_argument("--steps", type=int, default=300, help="at each of three places")
    parser.add_argument("--folder", type=Path, help="keeps the set; default: a temporary one")
    parser.add_argument("--output", type=Path, default=RESULTS, help="JSON file to write")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        figures = measure(args.folder or Path(scratch), args.sentences, args.steps)
    args.output.write_text(
        json.dumps({"sentences": args.sentences, "figures": figures}, indent=1) + "\n"
    )
    for stage, values in figures.items():
        print(f"{stage}: " + ", ".join(f"{name} {value}" for name, value in values.items()))


if __name__ == "__main__":
    main()
