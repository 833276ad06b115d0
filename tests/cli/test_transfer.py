"""The command transfer: sets made, gone on with, shown, labelled again."""

import errno
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import astuple
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from potstill import files as files_module
from potstill.data.corpus import load_corpus
from potstill.inference.load import load
from potstill.recipes import _shards, transfer
from potstill.transfer import shards, sources
from potstill.transfer.dataset import TransferSet, read_transfer_set
from potstill.transfer.sentences import LabelledSentence, SourceKind, normal
from potstill.transfer.shards import SHARD_SIZE, read_shard, read_top_k, write_shard
from tests.cli.conftest import SMALL, ToyTask, bodies, files, run, run_ok
from tests.transfer.sets import write_old_set


@pytest.fixture
def without_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be sampled."""
    monkeypatch.setattr(sources, "load_sampler", None)


class TestNewSet:
    @pytest.mark.usefixtures("small_shards")
    def test_all_files_are_written_and_kinds_counted(self, transfer_args: list[object]) -> None:
        out = run_ok(*transfer_args)
        names = ["own-00000", "sampled-00000", "sampled-00001"]
        names += [f"edited-0000{i}" for i in range(3)]
        shards = {f"set/{name}.parquet" for name in names}
        beside = {"transfer.json", "sampler.safetensors", "vocabulary.json"}
        assert files("set") == shards | {f"set/{name}" for name in beside}
        # One of the user's own three is a training sentence.
        kinds = read_transfer_set(Path("set")).select(without=[]).kinds()
        assert kinds == {"own": 2, "sampled": 30, "edited": 60}
        assert f"sampled: {kinds[SourceKind.SAMPLED]} sentences, labelled" in out

    def test_no_sentence_of_the_corpus_is_in_it(
        self, transfer_set: Path, toy_task: ToyTask
    ) -> None:
        sentences = {normal(row.sentence) for row in read_transfer_set(transfer_set).rows()}
        for split in load_corpus(str(toy_task.toy)).splits.values():
            assert not {normal(s) for s in split.sentences} & sentences

    def test_logits_are_the_teachers(self, transfer_set: Path, toy_task: ToyTask) -> None:
        made = list(read_transfer_set(transfer_set).rows())
        teacher = load(toy_task.teacher)
        expected = teacher.logits([row.sentence for row in made])
        np.testing.assert_allclose([row.logits for row in made], expected, rtol=0, atol=2e-3)
        # After a word: those of the sentence up to there.
        pairs = [(row.sentence, row.word_logits) for row in made]
        sentence, word_logits = max(pairs, key=lambda pair: len(pair[1]))
        ends = [match.end() for match in re.finditer(r"\S+", sentence)]
        expected = teacher.logits([sentence[:end] for end in ends])
        np.testing.assert_allclose(word_logits, expected, rtol=0, atol=2e-3)
        assert len(word_logits) > 3

    def test_edited_sentences_have_parents(self, transfer_set: Path, toy_task: ToyTask) -> None:
        made = list(read_transfer_set(transfer_set).rows())
        train = set(load_corpus(str(toy_task.toy)).splits["train"].sentences)
        others = {row.sentence for row in made if row.origin.kind != "edited"}
        assert {row.parent for row in made if row.parent} <= train | others
        assert all(bool(row.parent) == (row.origin.kind == "edited") for row in made)

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            (b"", r"own\.txt is empty"),
            (b"One.\n\nTwo.\n", r"own\.txt:2: the line is empty; write one sentence per line"),
            (b"One.\n" + b"word " * 300, r"own\.txt:2: 1500 characters are no sentence"),
            (b"One.\nCaf\xe9.\n", r"own\.txt:2: not UTF-8 text"),
        ],
    )
    def test_unlabelled_file_without_sentences_is_refused(
        self, body: bytes, words: str, transfer_args: list[object]
    ) -> None:
        Path("own.txt").write_bytes(body)
        result = run(*transfer_args)
        assert (result.code, result.out) == (1, "")
        assert re.search(words, result.err)
        assert files() == {"own.txt"}

    def test_show(self, transfer_set: Path) -> None:
        shown = run_ok("transfer", 1, "--transfer_path", transfer_set, "--show", 8)
        assert shown.count(" %, ") == 8
        assert "sampled: 30 sentences, labelled" in shown


class TestSetThatIsThere:
    @pytest.mark.usefixtures("without_sampler")
    def test_finished_set_is_left_as_it_is(
        self, transfer_set: Path, transfer_args: list[object]
    ) -> None:
        before = bodies("set")
        run_ok(*transfer_args)
        assert bodies("set") == before

    def test_interrupted_set_is_finished(
        self, transfer_set: Path, transfer_args: list[object], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = bodies("set")
        shutil.rmtree("set")
        write = _shards.write_shard

        def interrupted(path: Path, *args: Any) -> None:
            if path.name.startswith("edited-00001"):
                raise KeyboardInterrupt
            write(path, *args)

        with monkeypatch.context() as patch:
            patch.setattr(_shards, "write_shard", interrupted)
            stopped = run(*transfer_args)
        assert stopped.code == 130
        assert "what is finished is in set; the same command goes on from there" in stopped.out
        assert not Path("set/edited-00001.parquet").exists()
        flags = ("--model_path", transfer_args[3], "--transfer_set", "set", *SMALL)
        refused = run("distil", 1, *flags)
        assert refused.code == 1
        assert "unfinished: 2 of 6 shards are missing" in refused.err
        run_ok(*transfer_args)
        assert bodies("set") == before

    def test_set_on_a_full_disk_is_finished_later(
        self, transfer_set: Path, transfer_args: list[object], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = bodies("set")
        for name in ("edited-00001", "edited-00002"):
            Path(f"set/{name}.parquet").unlink()
        write = files_module.write_bytes

        def full(file: Path, body: bytes) -> None:
            if file.name == "edited-00002.parquet":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
            write(file, body)

        with monkeypatch.context() as patch:
            patch.setattr(shards, "write_bytes", full)
            result = run(*transfer_args)
        assert (result.code, result.err.count("\n")) == (1, 1)
        assert "the disk is full" in result.err and "edited-00002.parquet" in result.err
        assert files("set") == {*before} - {"set/edited-00002.parquet"}
        run_ok(*transfer_args)
        assert bodies("set") == before

    def test_set_grows_and_what_is_there_stays(
        self, transfer_set: Path, transfer_args: list[object]
    ) -> None:
        before = bodies("set")
        run_ok(*transfer_args[:-1], 80)
        assert files("set") == {*before, "set/edited-00003.parquet"}
        after = bodies("set")
        assert all(after[f] == body for f, body in before.items() if f != "set/transfer.json")

    def test_missing_top_k_targets_are_added(
        self, transfer_set: Path, transfer_args: list[object]
    ) -> None:
        """As in sets of the time before there were any: by another pass over the sentences."""
        before = bodies("set")
        file = Path("set/sampled-00001.parquet")
        rows, sampled = read_shard(file, 2), read_top_k(file)
        write_shard(file, rows, 2)
        run_ok(*transfer_args)
        assert read_shard(file, 2) == rows and len(rows) == 5
        # Alike but for rounding.
        for targets, expected in zip(read_top_k(file), sampled, strict=True):
            assert targets and expected
            np.testing.assert_array_equal(targets.offsets, expected.offsets)
            np.testing.assert_allclose(targets.probs, expected.probs, rtol=2e-3, atol=1e-5)
        file.write_bytes(before[str(file)])
        assert bodies("set") == before

    @pytest.mark.usefixtures("small_shards")
    def test_targets_that_were_left_out_are_added(self, transfer_args: list[object]) -> None:
        run_ok(*transfer_args, "--no_soft_targets")
        paths = sorted(Path("set").glob("*.parquet"))
        before = {path: (path.read_bytes(), read_shard(path, 2)) for path in paths}
        run_ok(*transfer_args, "--no_soft_targets")
        assert not read_transfer_set(Path("set")).has_top_k
        run_ok(*transfer_args)
        assert read_transfer_set(Path("set")).has_top_k
        for path, (body, rows) in before.items():
            assert read_shard(path, 2) == rows
            assert (path.read_bytes() == body) == (not path.name.startswith("sampled"))

    def test_missing_vocabulary_is_added(
        self, transfer_set: Path, transfer_args: list[object]
    ) -> None:
        before = bodies("set")
        Path("set/vocabulary.json").unlink()
        run_ok(*transfer_args)
        assert bodies("set") == before

    def test_damaged_shard_is_named(self, transfer_set: Path, transfer_args: list[object]) -> None:
        shard = Path("set/sampled-00001.parquet")
        shard.write_bytes(shard.read_bytes()[:-9])
        result = run(*transfer_args)
        assert result.code == 1
        assert "sampled-00001.parquet is damaged" in result.err

    def test_damaged_sampler_is_named_and_made_again(
        self, transfer_set: Path, transfer_args: list[object]
    ) -> None:
        shard = Path("set/sampled-00001.parquet")
        shard.unlink()
        Path("set/sampler.safetensors").write_bytes(b"damaged")
        result = run(*transfer_args)
        assert result.code == 1
        assert "sampler.safetensors is damaged or of another base" in result.err
        Path("set/sampler.safetensors").unlink()
        run_ok(*transfer_args)
        assert shard.is_file()

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (
                ("--temperature", 0.5),
                r"transfer set in set was made with another --temperature \(1\.0, not",
            ),
            (("--unlabelled", "other.txt"), "set was made with another --unlabelled"),
            (("--model_path", "teacher"), "set was made with another teacher"),
        ],
    )
    def test_other_settings_are_refused(
        self, change: tuple[object, ...], words: str, transfer_args: list[object], toy_task: ToyTask
    ) -> None:
        small = [*transfer_args[:-4], "--sampled", 0, "--edited", 5]
        run_ok(*small)
        Path("other.txt").write_text("Other birds are old.\n")
        run_ok(*toy_task.args("LoRA", 3, "teacher"))
        before = bodies("set")
        result = run(*small, *change)
        assert (result.code, result.err.count("\n")) == (1, 1)
        assert re.search(words, result.err)
        assert bodies("set") == before
        if change[0] == "--model_path":
            learn = ("distil", 1, "--model_path", "teacher", "--transfer_set", "set", *SMALL)
            result = run(*learn)
            assert result.code == 1
            assert "was labelled by another teacher" in result.err

    @pytest.mark.parametrize("size", [30, SHARD_SIZE])
    def test_shards_of_another_size_are_refused(
        self,
        size: int,
        transfer_set: Path,
        transfer_args: list[object],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        before = bodies("set")
        make = partial(transfer.make_transfer_set, shard_size=size)
        monkeypatch.setattr(transfer, "make_transfer_set", make)
        result = run(*transfer_args)
        assert result.code == 1
        assert f"set was made with another shard_size (25, not {size})" in result.err
        assert bodies("set") == before


class TestOldSet:
    """A set of the time before Parquet."""

    @pytest.fixture
    def old(self, transfer_set: Path) -> list[LabelledSentence]:
        """Put a set as it was in place of one; return its sentences."""
        made = read_transfer_set(transfer_set)
        rows: dict[SourceKind, list[LabelledSentence]] = {kind: [] for kind in SourceKind}
        top_k = []
        for shard in made.shards:
            rows[shard.kind] += read_shard(shard.path, 2)
            top_k += [targets for targets in read_top_k(shard.path) if targets]
            shard.path.unlink()
        write_old_set(transfer_set, made.description, rows, top_k)
        return [row for kind in made.description["sentences"] for row in rows[SourceKind(kind)]]

    def test_it_is_refused_until_it_is_converted(
        self, old: list[LabelledSentence], transfer_args: list[object], toy_task: ToyTask
    ) -> None:
        learn = [*toy_task.args("distil", 2, "student", "--transfer_set", "set"), "--epochs", 1]
        show = ("transfer", 1, "--transfer_path", "set", "--show", 3)
        for refused in (run(*learn), run(*show), run(*transfer_args)):
            assert (refused.code, refused.err.count("\n")) == (1, 1)
            assert "set is of an earlier version, or half converted" in refused.err
            assert "convert it: `potstill transfer SR` --convert --transfer_path set" in refused.err
        out = run_ok("transfer", 1, "--convert", "--transfer_path", "set")
        assert out == "set: 6 shards converted\n"
        assert list(read_transfer_set(Path("set")).rows()) == old
        assert "nothing to convert" in run_ok("transfer", 1, "--convert", "--output", "set")
        before = bodies("set")
        run_ok(*transfer_args)
        assert bodies("set") == before
        assert "; soft targets for" in run_ok(*learn)
        assert not Path("student.tokens").exists()


class TestRelabel:
    """The sentences of a set, labelled by another teacher."""

    @pytest.fixture
    def relabelled(
        self, transfer_set: Path, transfer_args: list[object], toy_task: ToyTask
    ) -> Callable[..., TransferSet]:
        """Label a set's sentences by a teacher in `teacher`."""
        run_ok(*toy_task.args("LoRA", 3, "teacher", "--lr", 0.02))

        def make(earlier: str, folder: str, edited: int = 60) -> TransferSet:
            changes = {toy_task.teacher: "teacher", "set": folder}
            args = [changes.get(word, word) for word in transfer_args[:-1]]  # type: ignore[call-overload]
            run_ok(*args, edited, "--relabel", earlier)
            return read_transfer_set(Path(folder))

        return make

    @pytest.mark.usefixtures("without_sampler")
    def test_sentences_are_kept_and_the_logits_are_the_other_teachers(
        self, relabelled: Callable[..., TransferSet]
    ) -> None:
        earlier, again = read_transfer_set(Path("set")), relabelled("set", "again")
        before, after = list(earlier.rows()), list(again.rows())
        assert [row[:3] for row in map(astuple, before)] == [row[:3] for row in map(astuple, after)]
        expected = load(Path("teacher")).logits([row.sentence for row in after])
        logits = np.array([row.logits for row in after])
        np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-3)
        assert abs(np.array([row.logits for row in before]) - logits).max() > 0.1
        n_targets = 0
        for old, new in zip(earlier.shards, again.shards, strict=True):
            for was, targets in zip(read_top_k(old.path), read_top_k(new.path), strict=True):
                assert (targets is None) == (was is None)
                if targets and was:
                    np.testing.assert_array_equal(targets.probs, was.probs)
                    n_targets += 1
        assert n_targets == 30

    def test_last_shard_is_filled_up_with_new_sentences(
        self, relabelled: Callable[..., TransferSet]
    ) -> None:
        again = relabelled("set", "again")
        grown = relabelled("again", "more", 80)
        assert len(grown) == len(again) + 20
        sentences = ({row.sentence for row in made.rows()} for made in (again, grown))
        assert next(sentences) < next(sentences)
