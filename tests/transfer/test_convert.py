"""Sets of earlier versions: converted, half converted, damaged."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from potstill.errors import UserError
from potstill.transfer import convert
from potstill.transfer.convert import convert_set
from potstill.transfer.dataset import read_transfer_set
from potstill.transfer.sentences import SourceKind
from potstill.transfer.shards import read_top_k
from tests.transfer.sets import describe, labelled, some_top_k, write_old_set

SAMPLED = [labelled("It rains."), labelled("Tom „ran“\u2028off."), labelled("Ann sleeps.")]
EDITED = [labelled("It rain.", "edited:change_form swap", "It rains.", [2.0, -1.0])]
TARGETS = [some_top_k(2), some_top_k(0), some_top_k(3, seed=1)]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    rows = {SourceKind.SAMPLED: SAMPLED, SourceKind.EDITED: EDITED}
    description = describe(own=0, sampled=3, edited=1) | {"shard_size": 2}
    write_old_set(tmp_path, description, rows, TARGETS)
    return tmp_path


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


CONVERTED = {"transfer.json", "sampled-00000.parquet", "sampled-00001.parquet"}
CONVERTED |= {"edited-00000.parquet"}


def check(folder: Path) -> None:
    transfer_set = read_transfer_set(folder)
    assert list(transfer_set.rows()) == SAMPLED + EDITED
    found = [targets for n in (0, 1) for targets in read_top_k(transfer_set.shards[n].path)]
    for targets, expected in zip(found, TARGETS, strict=True):
        assert targets is not None
        for name in ("offsets", "token_ids", "probs", "next_ids"):
            np.testing.assert_array_equal(getattr(targets, name), getattr(expected, name))
    assert names(folder) == CONVERTED


def test_everything_is_converted_and_the_old_files_go(old: Path) -> None:
    with pytest.raises(UserError, match=r"earlier version, or half converted; .* `convert`"):
        read_transfer_set(old)
    assert convert_set(old) == 3
    check(old)
    assert convert_set(old) == 0


def test_half_converted_set_is_refused_and_gone_on_with(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = convert.write_shard

    def full(path: Path, *args: object) -> None:
        if path.name == "sampled-00001.parquet":
            raise OSError(28, "No space left on device")
        write(path, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(convert, "write_shard", full)
        with pytest.raises(OSError, match="No space left"):
            convert_set(old)
    assert {"sampled-00000.parquet", "sampled-00001.jsonl.gz"} <= names(old)
    assert "sampled-00000.jsonl.gz" not in names(old)
    with pytest.raises(UserError, match="half converted"):
        read_transfer_set(old)
    assert convert_set(old) == 2
    check(old)


def test_an_unfinished_set_is_converted(old: Path) -> None:
    (old / "edited-00000.jsonl.gz").unlink()
    assert convert_set(old) == 2
    with pytest.raises(UserError, match="unfinished: 1 of 3"):
        read_transfer_set(old)


def test_targets_may_be_missing(old: Path) -> None:
    (old / "sampled-00001.next.npz").unlink()
    convert_set(old)
    assert read_top_k(old / "sampled-00001.parquet") == [None]


@pytest.mark.parametrize("name", ["sampled-00001.jsonl.gz", "sampled-00001.next.npz"])
@pytest.mark.parametrize("body", [b"", b"text", gzip.compress(b'{"sentence": "It."}', mtime=0)])
def test_damaged_file_is_named_and_kept(old: Path, name: str, body: bytes) -> None:
    (old / name).write_bytes(body)
    with pytest.raises(UserError, match=f"{name} is damaged"):
        convert_set(old)
    assert {name, "sampled-00001.jsonl.gz"} <= names(old)


def test_folder_without_a_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no transfer\.json"):
        convert_set(tmp_path)
