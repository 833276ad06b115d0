"""Kills a process between every two system calls by which it writes an artefact.

Run with count_calls.c preloaded. Each time a forked process writes a new artefact over an earlier
one and is killed before its n-th call, for n = 1, 2, … until it lives. What is there then must be
the earlier artefact or the new one, whole, and writing it again must leave nothing else. Prints how
many were killed, by artefact.
"""

import ctypes
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from potstill.files import MANIFEST, write_bytes, write_json
from potstill.inference.student import StudentClassifier
from potstill.manifest import find_damage
from potstill.student.io import save_student
from potstill.student.model import DistilRNN, StudentConfig
from potstill.student.tokenizer import train_tokenizer
from potstill.training.checkpoint import Checkpoint, EpochProgress
from potstill.training.history import TrainResult

SHIM = ctypes.CDLL(None)
TEXTS = ["The books are old.", "The cats sleep in every garden."]
Contents = dict[str, bytes]


def contents(folder: Path) -> Contents:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def student(folder: Path, seed: int) -> StudentClassifier:
    torch.manual_seed(seed)
    folder.mkdir()
    tokenizer = train_tokenizer(TEXTS, 300)
    sizes = {"vocab_size": tokenizer.get_vocab_size(), "classes": 2}
    save_student(DistilRNN(StudentConfig("gru", 4, 4, 1, **sizes)), tokenizer, folder)
    config = {"SR": seed, "labels": ["a", "b"], "max_length": 9}
    config |= {
        "student": {"cell": "gru", "hidden_size": 4, "embedding_size": 4, "layers": 1} | sizes
    }
    write_json(folder / "config.json", config | {"versions": {"potstill": "0"}})
    return StudentClassifier(folder)


def checkpoint(folder: Path, seed: int) -> None:
    torch.manual_seed(seed)
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    tensors = dict(layer.named_parameters())
    result = TrainResult([{"epoch": seed}], {})
    Checkpoint(folder, {"lr": 1}).save(result, tensors, optimizer, EpochProgress(seed))


def cut_everywhere(
    work: Path,
    write: Callable[[Path, int], None],
    check: Callable[[Path, Contents, Contents], None],
) -> int:
    """Return how often `write`, which writes version 0 or 1, was killed."""
    folders = [work / f"whole-{version}" / "artefact" for version in (0, 1)]
    for folder in folders:
        folder.parent.mkdir()
    write(folders[0], 0)
    shutil.copytree(folders[0], folders[1])
    write(folders[1], 1)
    earlier, new = map(contents, folders)
    assert earlier != new
    killed = 0
    for calls in range(1, 500):
        place = work / f"cut-{calls}"
        place.mkdir()
        target = place / "artefact"
        shutil.copytree(folders[0], target)
        pid = os.fork()
        if not pid:
            SHIM.arm(calls)
            write(target, 1)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        check(target, earlier, new)
        if not status:
            break
        assert os.WIFSIGNALED(status), f"the writer ended with {status}"
        killed += 1
        write(target, 1)
        assert contents(target) == new
        assert {path.name for path in place.iterdir()} <= {"artefact", ".artefact.lock"}
        shutil.rmtree(place)
    return killed


def whole_folder(folder: Path, earlier: Contents, new: Contents) -> None:
    assert contents(folder) in (earlier, new)
    assert find_damage(folder) == ""


def whole_files(folder: Path, earlier: Contents, new: Contents) -> None:
    """Each file is one of the two, but for hidden ones, which nobody reads."""
    for name, body in contents(folder).items():
        versions = (earlier.get(name), new.get(name))
        assert name.startswith(".") or name == MANIFEST or body in versions, name
    assert find_damage(folder) == ""


def main(work: Path) -> None:
    work.mkdir()
    students = [student(work / f"student-{seed}", seed) for seed in (0, 1)]

    def save(folder: Path, version: int) -> None:
        students[version].save_pretrained(folder)

    def export(folder: Path, version: int) -> None:
        """Version 1 is exported in 8 bits."""
        if not folder.exists():
            students[0].save_pretrained(folder)
        StudentClassifier(folder).export_onnx(folder, int8=bool(version))

    def file(folder: Path, version: int) -> None:
        folder.mkdir(exist_ok=True)
        write_bytes(folder / "file", b"01"[version : version + 1] * 5000)

    killed = {}
    for name, write, check in (
        ("student", save, whole_folder),
        ("state", checkpoint, whole_folder),
        ("export", export, whole_files),
        ("file", file, whole_files),
    ):
        (work / name).mkdir()
        killed[name] = cut_everywhere(work / name, write, check)
    print(json.dumps(killed))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
