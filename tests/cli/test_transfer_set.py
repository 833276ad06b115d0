"""A student that learns from a transfer set."""

import re
import time
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from potstill.recipes import transfer
from potstill.transfer.dataset import read_transfer_set
from potstill.transfer.settings import TransferSettings
from potstill.transfer.shards import read_shard, write_shard
from tests.cli.conftest import ToyTask, read_json, run, run_ok


@pytest.fixture
def distil(transfer_set: Path, toy_task: ToyTask) -> list[object]:
    """Return arguments that distil into `student`."""
    return toy_task.args("distil", 2, "student", "--transfer_set", transfer_set, "--dropout", 0)


@pytest.fixture
def distil_briefly(distil: list[object]) -> list[object]:
    return [*distil, "--pretrain_epochs", 1]


def into(folder: str, args: list[object]) -> list[object]:
    """Return the arguments with another folder for the student."""
    return [folder if word == "student" else word for word in args]


def test_sentences_held_out_are_left_out(distil: list[object]) -> None:
    out = run_ok(*distil)
    learned = int(re.search(r"transfer set: (\d+) sentences from set", out)[1])  # type: ignore[index]
    config = read_json("student/config.json")
    assert sum(config["transfer_set"]["sentences"].values()) == learned <= 92
    assert learned < len(read_transfer_set(Path("set")))
    assert f"; {92 - learned} left out: held-out" in out
    run_ok("evaluate", "--model_path", "student")


@pytest.mark.parametrize("seconds", [0.0, 1e9])
def test_what_is_not_labelled_by_the_deadline_is_left_out(
    seconds: float, transfer_args: list[object], small_shards: None, toy_task: ToyTask
) -> None:
    """But for the first part of each kind."""
    transfer.make_transfer_set(
        1,
        TransferSettings(sampled=0, edited=60),
        teacher_path=toy_task.teacher,
        folder=Path("timed"),
        unlabelled=Path("own.txt"),
        deadline=time.monotonic() + seconds,
    )
    made = read_transfer_set(Path("timed"))
    assert len(made) == (62 if seconds else 27)  # own, and the first file of edited ones
    assert len(list(Path("timed").glob("*.parquet"))) == 4
    out = run_ok(*toy_task.args("distil", 2, "out", "--transfer_set", "timed"))
    assert "transfer set: " in out


def test_pretraining_takes_fewer_epochs_of_so_much_text(
    distil: list[object], toy_task: ToyTask
) -> None:
    assert "pretrained as a language model: 3 epochs over" in run_ok(*distil)
    assert read_json("student/config.json")["settings"]["pretrain_epochs"] == 3
    assert "pretrained as a language model: 6 epochs over" in run_ok(
        *toy_task.args("rnn", 2, "control")
    )
    assert read_json("control/config.json")["settings"]["pretrain_epochs"] == 6


def test_run_without_the_set_is_another_run(distil: list[object]) -> None:
    run_ok(*distil)
    Path("student.unfinished").mkdir()
    assert "no interrupted run" in run(*distil, "--resume").err


def test_word_logits_are_used_unless_their_weight_is_0(distil: list[object]) -> None:
    run_ok(*distil)
    run_ok(*into("plain", distil), "--word_loss_weight", 0)
    student, plain = (read_json(f"{name}/results.json")["last"] for name in ("student", "plain"))
    assert student["train"]["loss"] != plain["train"]["loss"]
    student_names, plain_names = (
        load_file(f"{name}/model.safetensors").keys() for name in ("student", "plain")
    )
    # The layer that judges words is kept where it learnt to.
    assert student_names - plain_names == {"word_score.weight", "word_score.bias"}
    assert plain_names < student_names


def test_missing_word_logits_are_refused_unless_their_weight_is_0(distil: list[object]) -> None:
    shard = Path("set/own-00000.parquet")
    rows = read_shard(shard, 2)
    rows[0] = replace(rows[0], word_logits=[])
    write_shard(shard, rows, 2)
    refused = run(*distil)
    assert refused.code == 1
    assert "1 sentences of the transfer set in set have no logits after each word" in refused.err
    run_ok(*distil, "--word_loss_weight", 0)


def test_pretraining_learns_from_top_k_targets(distil_briefly: list[object]) -> None:
    out = run_ok(*distil_briefly)
    percent = int(re.search(r"; soft targets for (\d+)% of the tokens", out)[1])  # type: ignore[index]
    assert 10 < percent < 100  # not the tokens of the labelled sentences


def test_missing_top_k_targets_are_refused_unless_targets_are_hard(
    distil_briefly: list[object],
) -> None:
    shard = Path("set/sampled-00001.parquet")
    write_shard(shard, read_shard(shard, 2), 2)
    refused = run(*distil_briefly)
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert "5 sampled sentences of the transfer set in set lack the decod" in refused.err
    out = run_ok(*distil_briefly, "--pretrain_targets", "hard")
    assert "1 epoch over" in out and "soft targets" not in out


def test_damaged_top_k_targets_are_named(distil_briefly: list[object]) -> None:
    damaged = Path("set/sampled-00000.parquet")
    with pq.ParquetFile(damaged) as file:
        names = [file.metadata.schema.column(i).path for i in range(file.metadata.num_columns)]
        column = file.metadata.row_group(0).column(names.index("top_k_probs.list.element"))
        at = column.data_page_offset + column.total_compressed_size // 2
    body = bytearray(damaged.read_bytes())
    body[at] ^= 255
    damaged.write_bytes(body)
    refused = run(*distil_briefly)
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert "set/sampled-00000.parquet is damaged" in refused.err


def test_damaged_or_missing_vocabulary_is_named(distil_briefly: list[object]) -> None:
    file = Path("set/vocabulary.json")
    file.write_text('{"a": 1}')
    assert "set/vocabulary.json is damaged; remove it and run" in run(*distil_briefly).err
    file.unlink()
    assert "set holds no vocabulary.json" in run(*distil_briefly).err
