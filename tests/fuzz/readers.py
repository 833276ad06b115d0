"""Every reader of files, as a function of the bytes of one file, and good files to start from."""

import bz2
import copy
import gzip
import json
import lzma
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from potstill.data.corpus import load_corpus
from potstill.data.stream import open_source
from potstill.decoder.adapter import load_adapter, save_adapter
from potstill.decoder.classifier import build_lora_classifier
from potstill.decoder.hub import find_base_model
from potstill.decoder.lora import LoRALinear
from potstill.errors import UserError
from potstill.files import (
    MANIFEST,
    STUDENT_ONNX,
    STUDENT_TOKENIZER,
    STUDENT_WEIGHTS,
    read_json,
    write_manifest,
)
from potstill.inference.decoder import DecoderClassifier
from potstill.inference.onnx import OnnxClassifier
from potstill.inference.student import StudentClassifier
from potstill.manifest import find_damage
from potstill.student.base import load_base
from potstill.student.onnx_file import read_onnx
from potstill.training.checkpoint import Checkpoint
from potstill.transfer.dataset import read_transfer_set
from potstill.transfer.sentences import SourceKind
from potstill.transfer.shards import read_top_k, write_shard
from tests.inference.conftest import LABELS, VERSIONS, write_student
from tests.training.toy import Run
from tests.transfer.sets import describe, labelled, some_top_k, write_set

ROWS = [(f"Text number {i}, said \u201eso\u201c.", "good" if i % 2 else "bad") for i in range(12)]
CSV = "text,label\n" + "".join(f'"{text}",{label}\n' for text, label in ROWS)
TSV = CSV.replace('",', "\t").replace('"', "").replace("text,", "text\t")
COLA = "".join(f"s\t{i % 2}\t\t{text}\n" for i, (text, _) in enumerate(ROWS))
OBJECTS = [{"text": text, "label": label} for text, label in ROWS]
JSONL = "".join(json.dumps(row) + "\n" for row in OBJECTS)
FASTTEXT = "".join(f"__label__{label} {text}\n" for text, label in ROWS)
COMPRESS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


@dataclass(frozen=True)
class Reader:
    """What reads a file.

    Args:
        samples: Good files.
        read: Reads one, with these bytes.
        errors: What it may raise besides a `UserError`.
    """

    samples: list[bytes]
    read: Callable[[bytes], object]
    errors: tuple[type[Exception], ...] = ()


def attempt(reader: Reader, body: bytes) -> None:
    """Read a file: it is read or refused in a sentence; any other error is the caller's."""
    try:
        reader.read(body)
    except UserError as error:
        assert "\n" not in str(error).strip(), error
    except reader.errors:
        pass


def make_readers(folder: Path, tiny_gpt2: Path) -> dict[str, Callable[[], Reader]]:
    """Return what makes each reader; its files are in `folder`."""

    def table(suffix: str, *samples: str | bytes) -> Reader:
        def read(body: bytes) -> None:
            file = folder / f"x{suffix}"
            file.write_bytes(body)
            load_corpus(str(file))

        bodies = [s.encode() if isinstance(s, str) else s for s in samples]
        return Reader(bodies, read)

    def parquet() -> Reader:
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(OBJECTS), sink)
        return table(".parquet", sink.getvalue().to_pybytes())

    def stream(suffix: str, *samples: str | bytes) -> Reader:
        def read(body: bytes) -> None:
            file = folder / f"x{suffix}"
            file.write_bytes(body)
            with open_source(str(file), None) as source:
                for _ in source.chunks:
                    pass

        return Reader([s.encode() if isinstance(s, str) else s for s in samples], read)

    def file_of(
        model: Path, name: str, load: Callable[[Path], object], *, manifest: bool = False
    ) -> Reader:
        """A reader of a folder, of which one file is damaged."""
        whole = (model / name).read_bytes()

        def read(body: bytes) -> None:
            (model / name).write_bytes(body)
            try:
                if manifest:
                    write_manifest(model)
                load(model)
            finally:
                (model / name).write_bytes(whole)

        return Reader([whole], read)

    def student(name: str) -> Reader:
        def load(model: Path) -> None:
            StudentClassifier(model).predict("A text.")

        return file_of(write_student(folder / f"student-{name}"), name, load)

    def exported(name: str, int8: bool) -> Reader:
        model = write_student(folder / f"onnx-{name}-{int8}")
        StudentClassifier(model).export_onnx(model, int8=int8)
        for left in (MANIFEST, "model.safetensors"):
            (model / left).unlink(missing_ok=True)
        return file_of(model, name, lambda model: OnnxClassifier(model).predict("A text."))

    def init(name: str) -> Reader:
        model = write_student(folder / f"init-{name}")
        if name == STUDENT_ONNX:
            StudentClassifier(model).export_onnx(model, int8=True)
            (model / STUDENT_WEIGHTS).unlink()
        (model / MANIFEST).unlink(missing_ok=True)
        return file_of(model, name, load_base)

    def onnx_file() -> Reader:
        model = write_student(folder / "onnx-file")
        StudentClassifier(model).export_onnx(model, int8=True)
        return Reader([(model / "model.onnx").read_bytes()], read_onnx, (ValueError,))

    def write_adapter(model: Path) -> Any:
        base_model = find_base_model(str(tiny_gpt2))
        torch.manual_seed(0)
        base = base_model.base()
        untouched = copy.deepcopy(base)
        model.mkdir()
        save_adapter(build_lora_classifier(base, 2, rank=2, alpha=4), model, str(base_model.folder))
        about = {"labels": LABELS, "max_length": 32, "start_token": 0, "versions": VERSIONS}
        about["decoder"] = base_model.describe()
        (model / "config.json").write_text(json.dumps(about))
        return untouched

    def adapter(name: str) -> Reader:
        model = folder / f"adapter-{name}"
        original = write_adapter(model)
        untouched = []  # copies, each ten times as slow to make as to read an adapter

        def load(model: Path) -> None:
            base = untouched.pop() if untouched else copy.deepcopy(original)
            try:
                load_adapter(base, model)
            finally:
                if not any(isinstance(module, LoRALinear) for module in base.modules()):
                    untouched.append(base)

        return file_of(model, name, load)

    def adapter_config() -> Reader:
        model = folder / "adapter-classifier"
        write_adapter(model)
        return file_of(model, "config.json", lambda m: DecoderClassifier(m).predict("A text."))

    def transfer_set(name: str) -> Reader:
        path = folder / f"set-{name}"
        path.mkdir()
        rows = [labelled(f"This is number {i}.") for i in range(6)]
        write_set(path, describe(sampled=6), {SourceKind.SAMPLED: rows})
        shard = path / "sampled-00000.parquet"
        write_shard(shard, rows, 2, [some_top_k(4, i) for i in range(6)])

        def load(path: Path) -> None:
            opened = read_transfer_set(path)
            opened.summary()
            list(opened.rows())
            len(opened.select([]))
            for each in opened.shards:
                read_top_k(each.path)

        return file_of(path, name, load)

    def state(name: str) -> Reader:
        path = folder / f"state-{name}"
        run = Run(path, epochs=1)
        optimizer = torch.optim.AdamW(run.model.parameters())
        trainable = dict(run.model.named_parameters())
        checkpoint = Checkpoint(path, run.checkpoint.settings)

        def load(_: Path) -> None:
            checkpoint.load(trainable, optimizer)

        return file_of(path, name, load, manifest=True)

    def manifest() -> Reader:
        return file_of(write_student_with_manifest(folder), MANIFEST, find_damage)

    def any_json() -> Reader:
        def read(body: bytes) -> None:
            (folder / "any.json").write_bytes(body)
            read_json(folder / "any.json")

        return Reader([json.dumps({"a": [1, {"b": "c"}]}).encode()], read)

    readers: dict[str, Callable[[], Reader]] = {
        "csv": lambda: table(".csv", CSV, "sep=;\n" + CSV.replace(",", ";")),
        "tsv": lambda: table(".tsv", TSV, COLA),
        "txt": lambda: table(".txt", FASTTEXT, COLA, CSV, *map(CSV.encode, ("utf-16", "cp1252"))),
        "json": lambda: table(".json", json.dumps(OBJECTS), JSONL),
        "parquet": parquet,
        "lines of a stream": lambda: stream(".txt", "A text.\nAnother.\n\nMore.\n"),
        "csv of a stream": lambda: stream(".csv", CSV, "sep=;\n" + CSV.replace(",", ";")),
        "json of a stream": lambda: stream(".jsonl", JSONL),
        "8-bit weights": onnx_file,
        "manifest": manifest,
        "any json": any_json,
        "adapter, config.json": adapter_config,
    }
    for suffix, compress in COMPRESS.items():
        body = compress(CSV.encode())
        readers[f"csv{suffix}"] = lambda suffix=suffix, body=body: table(f".csv{suffix}", body)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        readers[f"student, {name}"] = lambda name=name: student(name)
    for name in ("config.json", "model.onnx", "tokenizer.json"):
        readers[f"exported student, {name}"] = lambda name=name: exported(name, False)
    for name in ("config.json", STUDENT_WEIGHTS, STUDENT_ONNX, STUDENT_TOKENIZER):
        readers[f"init, {name}"] = lambda name=name: init(name)
    readers["exported student, 8-bit"] = lambda: exported("model.onnx", True)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        readers[f"adapter, {name}"] = lambda name=name: adapter(name)
    for name in ("transfer.json", "sampled-00000.parquet"):
        readers[f"transfer set, {name}"] = lambda name=name: transfer_set(name)
    for name in ("state.json", "state.safetensors"):
        readers[f"state, {name}"] = lambda name=name: state(name)
    return readers


def cases_of(names: list[str], cases: int) -> dict[str, int]:
    """Return how many cases each reader gets: `cases`, which the files of one folder share; these
    are named "folder, file"."""
    folders = Counter(name.partition(",")[0] for name in names)
    return {name: -(-cases // folders[name.partition(",")[0]]) for name in names}


def write_student_with_manifest(folder: Path) -> Path:
    model = write_student(folder / "student-manifest")
    write_manifest(model)
    return model
