"""The command transfer."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from potstill.data.corpus import load_corpus
from potstill.inference.load import load
from potstill.recipes import transfer
from potstill.transfer import dataset
from potstill.transfer.top_k import read_top_k
from tests.cli.conftest import SMALL, ToyTask, files, read_json, run, run_ok


class TestTransfer:
    """A set from the toy teacher: made, gone on with, shown, learned from."""

    @pytest.mark.usefixtures("short_sentences")
    def test_a_set_is_complete_and_the_command_idempotent(
        self, transfer_args: list[object], toy_task: ToyTask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = run_ok(*transfer_args)
        names = ["own-00000", "sampled-00000", "sampled-00001"]
        names += [f"edited-0000{i}" for i in range(3)]
        shards = {f"set/{name}.jsonl.gz" for name in names}
        beside = {"transfer.json", "sampler.safetensors", "vocabulary.json"}
        beside |= {"sampled-00000.next.npz", "sampled-00001.next.npz"}
        assert files("set") == shards | {f"set/{name}" for name in beside}
        found = dataset.read_transfer_set(Path("set"))
        kinds = [source.partition(":")[0] for source in found.sources]
        # One of the user's own three is a training sentence.
        assert (kinds.count("own"), kinds.count("sampled"), kinds.count("edited")) == (2, 30, 60)
        assert f"sampled: {kinds.count('sampled')} sentences; by the teacher" in out
        for split in load_corpus(str(toy_task.toy)).splits.values():
            known = {dataset.normal(s) for s in split.sentences}
            assert not known & {dataset.normal(s) for s in found.sentences}
        teacher = load(toy_task.teacher)
        expected = teacher.logits(found.sentences)
        np.testing.assert_allclose(found.logits, expected, rtol=0, atol=2e-3)
        # After a word: what it says of the sentence up to there.
        sentence, words = max(
            zip(found.sentences, found.word_logits, strict=True), key=lambda pair: len(pair[1])
        )
        ends = [match.end() for match in re.finditer(r"\S+", sentence)]
        expected = teacher.logits([sentence[:end] for end in ends])
        np.testing.assert_allclose(words, expected, rtol=0, atol=2e-3)
        assert len(words) > 3
        train = set(load_corpus(str(toy_task.toy)).splits["train"].sentences)
        others = {s for s, kind in zip(found.sentences, kinds, strict=True) if kind != "edited"}
        assert {p for p in found.parents if p} <= train | others
        assert all(bool(p) == (k == "edited") for p, k in zip(found.parents, kinds, strict=True))

        # Twice in a row: nothing is made anew.
        before = {file: Path(file).read_bytes() for file in files("set")}
        monkeypatch.setattr(transfer, "tuned_sampler", None)
        run_ok(*transfer_args)
        assert {file: Path(file).read_bytes() for file in files("set")} == before
        monkeypatch.undo()

    @pytest.mark.usefixtures("short_sentences")
    def test_an_interrupted_set_is_continued_and_extended(
        self, transfer_args: list[object], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run_ok(*transfer_args)
        before = {file: Path(file).read_bytes() for file in files("set")}
        write = transfer.write_shard

        def interrupted(file: Path, rows: Any) -> None:
            if file.name.startswith("edited-00001"):
                raise KeyboardInterrupt
            write(file, rows)

        shutil.rmtree("set")
        with monkeypatch.context() as patch:
            patch.setattr(transfer, "write_shard", interrupted)
            assert run(*transfer_args).code == 130
        assert not Path("set/edited-00001.jsonl.gz").exists()
        flags = ("--model_path", transfer_args[3], "--transfer_set", "set", *SMALL)
        refused = run("distil", 1, *flags)
        assert refused.code == 1
        assert "unfinished: 2 of 6 shards are missing" in refused.err
        run_ok(*transfer_args)
        assert {file: Path(file).read_bytes() for file in files("set")} == before
        # More may be asked for; what is there stays.
        run_ok(*transfer_args[:-1], 80)
        assert files("set") == {*before, "set/edited-00003.jsonl.gz"}
        assert all(
            Path(file).read_bytes() == body
            for file, body in before.items()
            if file != "set/transfer.json"
        )

    @pytest.mark.usefixtures("short_sentences")
    def test_chances_of_tokens_are_added_to_a_set_without(
        self, transfer_args: list[object], toy_task: ToyTask
    ) -> None:
        """As sets were before they were kept; and learnt from, unless the tokens alone are."""
        run_ok(*transfer_args)
        before = {file: Path(file).read_bytes() for file in files("set")}
        drawn = read_top_k(Path("set/sampled-00001.next.npz"), 5)
        Path("set/sampled-00001.next.npz").unlink()
        learn = toy_task.args(
            "distil", 2, "student", "--transfer_set", "set", "--pretrain_epochs", 1
        )
        refused = run(*learn)
        assert (refused.code, refused.err.count("\n")) == (1, 1)
        assert "5 sampled sentences of the transfer set in set lack what the decod" in refused.err
        plain = [*learn[:2], *("plain" if w == "student" else w for w in learn[2:])]
        out = run_ok(*plain, "--pretrain_targets", "hard")
        assert "1 epochs over" in out and "by the decoder's chances" not in out
        run_ok(*transfer_args)
        # Another look, not what was sampled: alike but for rounding.
        again = read_top_k(Path("set/sampled-00001.next.npz"), 5)
        for one, other in zip(again, drawn, strict=True):
            np.testing.assert_array_equal(one.offsets, other.offsets)
            np.testing.assert_allclose(one.probs, other.probs, rtol=2e-3, atol=1e-5)
        Path("set/sampled-00001.next.npz").write_bytes(before["set/sampled-00001.next.npz"])
        assert {file: Path(file).read_bytes() for file in files("set")} == before
        out = run_ok(*learn)
        share = int(re.search(r"; (\d+)% of the next tokens by the decoder's chances", out)[1])  # type: ignore[index]
        assert 10 < share < 100  # the tokens of the labelled sentences are not
        Path("set/vocabulary.json").write_text('{"a": 1}')
        assert "set/vocabulary.json is damaged; remove it and run" in run(*learn).err
        Path("set/vocabulary.json").unlink()
        assert "set holds no vocabulary.json" in run(*learn).err
        run_ok(*transfer_args)
        assert {file: Path(file).read_bytes() for file in files("set")} == before
        damaged = Path("set/sampled-00000.next.npz")
        damaged.write_bytes(damaged.read_bytes()[:-50])
        refused = run(*learn)
        assert (refused.code, refused.err.count("\n")) == (1, 1)
        assert "set/sampled-00000.next.npz is damaged" in refused.err

    @pytest.mark.usefixtures("short_sentences")
    def test_damaged_files_are_named(self, transfer_args: list[object]) -> None:
        run_ok(*transfer_args)
        shard = Path("set/sampled-00001.jsonl.gz")
        body = shard.read_bytes()
        shard.write_bytes(body[:-9])
        result = run(*transfer_args)
        assert result.code == 1
        assert "sampled-00001.jsonl.gz is damaged" in result.err
        shard.unlink()
        Path("set/sampler.safetensors").write_bytes(b"damaged")
        result = run(*transfer_args)
        assert result.code == 1
        assert "sampler.safetensors is damaged or of another base" in result.err
        Path("set/sampler.safetensors").unlink()
        run_ok(*transfer_args)
        assert shard.is_file()

    @pytest.mark.usefixtures("short_sentences")
    def test_show_and_distil(self, transfer_args: list[object], toy_task: ToyTask) -> None:
        run_ok(*transfer_args)
        shown = run_ok("transfer", 1, "--transfer_path", "set", "--show", 8)
        assert shown.count(" %, ") == 8
        assert "sampled: 30 sentences; by the teacher" in shown
        distil = toy_task.args("distil", 2, "student", "--transfer_set", "set", "--dropout", 0)
        out = run_ok(*distil)
        # Its language model takes fewer passes over so much more text, unless told.
        assert "language model first: 3 epochs over" in out
        assert read_json("student/config.json")["settings"]["pretrain_epochs"] == 3
        assert "language model first: 6 epochs over" in run_ok(*toy_task.args("rnn", 2, "control"))
        assert read_json("control/config.json")["settings"]["pretrain_epochs"] == 6
        learned = int(re.search(r"transfer set: (\d+) sentences of set", out)[1])  # type: ignore[index]
        config = read_json("student/config.json")
        assert sum(config["transfer_set"]["sentences"].values()) == learned <= 92
        found = dataset.read_transfer_set(Path("set"))
        assert learned < len(found.sentences)  # some were made of sentences held out
        assert f"; {92 - learned} others came of" in out
        run_ok("evaluate", "--model_path", "student")
        # A run without the set is another run.
        other = ["student" if word == "student" else word for word in distil]
        Path("student.unfinished").mkdir()
        assert "no interrupted run" in run(*other, "--resume").err

    @pytest.mark.usefixtures("short_sentences")
    def test_word_logits_are_used_unless_their_weight_is_0(
        self, transfer_args: list[object], toy_task: ToyTask
    ) -> None:
        """What the teacher makes of each word, unless it is to weigh nothing."""
        run_ok(*transfer_args)
        distil = toy_task.args("distil", 2, "student", "--transfer_set", "set", "--dropout", 0)
        run_ok(*distil)
        plain = [*distil[:2], *("plain" if w == "student" else w for w in distil[2:])]
        run_ok(*plain, "--word_loss_weight", 0)
        one, other = (read_json(f"{name}/results.json")["last"] for name in ("student", "plain"))
        assert one["train"]["loss"] != other["train"]["loss"]
        assert load_file("student/model.safetensors").keys() == (
            load_file("plain/model.safetensors").keys()
        )
        rows = dataset.read_shard(Path("set/own-00000.jsonl.gz"), 2)
        del rows[0]["word_logits"]
        dataset.write_shard(Path("set/own-00000.jsonl.gz"), rows)
        refused = run(*distil)
        assert refused.code == 1
        assert (
            "1 sentences of the transfer set in set have no logits after each word" in refused.err
        )
        run_ok(*plain, "--word_loss_weight", 0)

    @pytest.mark.usefixtures("short_sentences")
    def test_relabel_keeps_the_sentences(
        self, transfer_args: list[object], toy_task: ToyTask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run_ok(*transfer_args)
        run_ok(*toy_task.args("LoRA", 3, "teacher", "--lr", 0.02))
        changes = {toy_task.teacher: "teacher", "set": "again"}
        other = [changes.get(word, word) for word in transfer_args]  # type: ignore[call-overload]
        with monkeypatch.context() as patch:
            patch.setattr(transfer, "tuned_sampler", None)  # nothing is sampled for it
            run_ok(*other, "--relabel", "set")
        one, two = (dataset.read_transfer_set(Path(name)) for name in ("set", "again"))
        assert (one.sentences, one.sources, one.parents) == (
            two.sentences,
            two.sources,
            two.parents,
        )
        expected = load(Path("teacher")).logits(two.sentences)
        np.testing.assert_allclose(two.logits, expected, rtol=0, atol=2e-3)
        assert abs(one.logits - two.logits).max() > 0.1
        assert one.top_k[2] is not None
        for mine, theirs in zip(one.top_k, two.top_k, strict=True):
            assert (mine is None) == (theirs is None)
            if mine and theirs:
                np.testing.assert_array_equal(mine.probs, theirs.probs)
        # And more of them than there were: their last shard is filled up.
        more = ["more" if word == "again" else word for word in other[:-1]]
        run_ok(*more, 80, "--relabel", "again")
        grown = dataset.read_transfer_set(Path("more"))
        assert len(grown.sentences) == len(two.sentences) + 20
        assert set(two.sentences) < set(grown.sentences)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (
                ("--temperature", 0.5),
                r"set holds a transfer set of another temperature \(1\.0, not",
            ),
            (("--unlabelled", "other.txt"), "set holds a transfer set of another own"),
            (("--model_path", "teacher"), "set holds a transfer set of another teacher"),
        ],
    )
    def test_other_settings_are_refused(
        self, change: tuple[object, ...], words: str, transfer_args: list[object], toy_task: ToyTask
    ) -> None:
        small = [*transfer_args[:-4], "--sampled", 0, "--edited", 5]
        run_ok(*small)
        Path("other.txt").write_text("Other birds are old.\n")
        run_ok(*toy_task.args("LoRA", 3, "teacher"))
        before = {file: Path(file).read_bytes() for file in files("set")}
        result = run(*small, *change)
        assert (result.code, result.err.count("\n")) == (1, 1)
        assert re.search(words, result.err)
        assert {file: Path(file).read_bytes() for file in files("set")} == before
        if change[0] == "--model_path":
            learn = ("distil", 1, "--model_path", "teacher", "--transfer_set", "set", *SMALL)
            result = run(*learn)
            assert result.code == 1
            assert "was labelled by another teacher" in result.err

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            (b"", r"own\.txt is empty"),
            (b"One.\n\nTwo.\n", r"own\.txt:2: the line is empty; give a sentence a line"),
            (b"One.\n" + b"word " * 300, r"own\.txt:2: 1500 characters are no sentence"),
            (b"One.\nCaf\xe9.\n", r"own\.txt:2: not UTF-8 text"),
        ],
    )
    def test_an_unlabelled_file_without_sentences_is_refused(
        self, body: bytes, words: str, transfer_args: list[object]
    ) -> None:
        Path("own.txt").write_bytes(body)
        result = run(*transfer_args)
        assert (result.code, result.out) == (1, "")
        assert re.search(words, result.err)
        assert files() == {"own.txt"}
