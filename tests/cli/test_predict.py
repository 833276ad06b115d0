"""The command predict."""

import io
import json
from pathlib import Path

import pytest

from tests.cli.conftest import TRAINING_COMMANDS, TrainedRuns, run, run_ok


class TestPredict:
    SENTENCES = ("The cat is old.", "The cat are old.", "Naïve “café”.")

    def test_arguments_file_and_standard_input_agree(
        self, runs: TrainedRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        text = "\r\n".join(self.SENTENCES)
        file = tmp_path / "sentences.txt"
        file.write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\n")
        expected = run_ok("predict", *self.SENTENCES)
        assert run_ok("predict", "--file", file) == expected
        for flags in ([], ["--file", "-"]):
            monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
            assert run_ok("predict", *flags) == expected

    def test_the_table_has_one_line_per_sentence(self, runs: TrainedRuns) -> None:
        result = run("predict", *self.SENTENCES)
        assert result.err == "model: DistilRNN in runs/distil-7 (auto: trained last)\n"
        lines = result.out.splitlines()
        for sentence, line in zip(self.SENTENCES, lines, strict=True):
            label, share, percent, rest = line.split(maxsplit=3)
            assert label in ("acceptable", "unacceptable")
            assert 50 <= float(share) <= 100
            assert (percent, rest) == ("%", sentence)

    @pytest.mark.parametrize("name", TRAINING_COMMANDS)
    def test_json_lines_parse(self, name: str, runs: TrainedRuns) -> None:
        out = run_ok("predict", *self.SENTENCES, "--json", "--model_path", f"runs/{name}-7")
        for sentence, line in zip(self.SENTENCES, out.splitlines(), strict=True):
            record = json.loads(line)
            assert set(record) == {"sentence", "label", "probabilities"}
            assert record["sentence"] == sentence
            probabilities = record["probabilities"]
            assert record["label"] == max(probabilities, key=probabilities.get)
            assert sum(probabilities.values()) == pytest.approx(1, abs=2e-4)

    def test_predictions_do_not_depend_on_the_batch(self, runs: TrainedRuns) -> None:
        longer = "The cat that the dogs saw is very, very old, I believe."
        probabilities = [
            json.loads(run_ok("predict", "--json", *sentences).splitlines()[-1])["probabilities"]
            for sentences in ([self.SENTENCES[0]], [longer, self.SENTENCES[0]])
        ]
        assert probabilities[0] == pytest.approx(probabilities[1], abs=2e-4)

    @pytest.mark.parametrize(
        ("body", "words"), [(b" \n\n", "is empty"), (b"\xe9\nA.", ":1: not UTF-8")]
    )
    def test_standard_input_without_text_is_refused(
        self, body: bytes, words: str, runs: TrainedRuns, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(body)))
        result = run("predict")
        assert (result.code, result.out) == (1, "")
        assert result.err.startswith("potstill: standard input")
        assert words in result.err


class TestExplain:
    SENTENCES = TestPredict.SENTENCES

    def test_json_has_every_word_with_its_place(self, runs: TrainedRuns) -> None:
        for name in ("LoRA", "distil"):
            flags = ("--json", "--model_path", f"runs/{name}-7")
            explained = run_ok("predict", *self.SENTENCES, "--explain", *flags).splitlines()
            plain = run_ok("predict", *self.SENTENCES, *flags).splitlines()
            for sentence, line, bare in zip(self.SENTENCES, explained, plain, strict=True):
                record = json.loads(line)
                words, decisive = record.pop("words"), record.pop("decisive")
                assert record["label"] == json.loads(bare)["label"]
                assert [w["word"] for w in words] == sentence.split()
                assert [sentence[w["start"] : w["end"]] for w in words] == sentence.split()
                scores = [w["probabilities"][record["label"]] for w in words]
                assert 1 <= decisive < len(scores)

    def test_a_pipe_gets_the_words_with_their_scores_and_no_colour(self, runs: TrainedRuns) -> None:
        out = run_ok("predict", *self.SENTENCES, "--explain")
        assert "\x1b" not in out
        plain = run_ok("predict", *self.SENTENCES).splitlines()
        lines = out.splitlines()
        assert lines[::2] == plain
        for sentence, line in zip(self.SENTENCES, lines[1::2], strict=True):
            parts = line.split()
            assert parts[::2] == sentence.split()
            assert sum(score.endswith("*") for score in parts[1::2]) == 1
            assert all(0 <= int(score.rstrip("*")) <= 100 for score in parts[1::2])

    def test_a_student_without_a_word_layer_explains_too(self, runs: TrainedRuns) -> None:
        out = run_ok("predict", "The cat is old.", "--explain", "--model_path", "runs/rnn-7")
        assert out.splitlines()[1].split()[::2] == ["The", "cat", "is", "old."]
