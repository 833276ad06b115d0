"""The command report, and what every run leaves for it."""

import shlex
from pathlib import Path

import pytest

from potstill.report.command import changed_settings, reproduction
from potstill.report.predictions import read_predictions
from tests.cli.conftest import (
    TRAINING_COMMANDS,
    ToyTask,
    TrainedRuns,
    read_json,
    run,
    run_ok,
    scores_by_epoch,
    weights,
)


@pytest.mark.parametrize("command", TRAINING_COMMANDS)
def test_every_run_has_a_report_and_its_predictions(command: str, runs: TrainedRuns) -> None:
    folder = Path(f"runs/{command}-7")
    report = (folder / "report.html").read_text()
    assert "on MiniCoLA, SR 7</h1>" in report
    assert "Most confident mistakes" in report
    scored = read_json(folder / "results.json")["chosen"]
    predictions = read_predictions(folder)
    assert predictions.keys() == scored.keys()
    for split, found in predictions.items():
        right = sum(p.predicted == p.label for p in found)
        assert right / len(found) == pytest.approx(scored[split]["accuracy"])
        assert all(sum(p.probabilities.values()) == pytest.approx(1, abs=1e-5) for p in found)
    # Sentences of others' data are not published with the model.
    assert (folder / ".gitignore").read_text().split() == ["predictions.jsonl", "report.html"]


def test_report_of_one_run_goes_into_its_folder(runs: TrainedRuns) -> None:
    file = Path("runs/rnn-7/report.html")
    before = file.read_text()
    assert run_ok("report", "runs/rnn-7") == "report: runs/rnn-7/report.html\n"
    assert file.read_text() == before


def test_report_of_several_runs(runs: TrainedRuns, tmp_path: Path) -> None:
    out = run_ok("report", "runs/distil-7", "runs/rnn-7", "--output", tmp_path / "two.html")
    assert out == f"report: {tmp_path}/two.html\n"
    page = (tmp_path / "two.html").read_text()
    assert page.count("rnn-7 against distil-7") == 3
    assert "not compared" not in page
    run_ok("report", "runs/distil-7", "runs/rnn-7", "runs/LoRA-7", "--output", tmp_path)
    assert "3 runs side by side" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        ([], 2, "name the folder of a run, or of several"),
        (["nothing"], 1, "nothing: there is no such folder; name the folder of a run"),
        (["."], 1, "holds no run: there is no results.json"),
        (["runs/rnn-7", "runs/../runs/rnn-7"], 1, "name each run once"),
        (
            ["runs/rnn-7", "--output", "/proc/no/where.html"],
            1,
            "--output: /proc/no can't be written",
        ),
    ],
)
def test_what_report_refuses(args: list[str], code: int, words: str, runs: TrainedRuns) -> None:
    result = run("report", *args)
    assert (result.code, result.out) == (code, "")
    assert words in result.err and result.err.count("\n") == 1


@pytest.mark.parametrize("command", TRAINING_COMMANDS)
def test_the_command_in_a_report_makes_the_run_again(command: str, toy_task: ToyTask) -> None:
    flags: tuple[object, ...] = ("--lr", 0.002, "--holdout", 0.1, "--max_length", 40)
    if command != "LoRA":
        flags += ("--no_match_prevalence", "--layers", 1, "--pretrain_targets", "hard")
    run_ok(*toy_task.args(command, 5, "first", *flags))
    config = read_json("first/config.json")
    words = shlex.split(reproduction(config))
    assert words[:3] == ["potstill", command, "5"]
    run_ok(*words[1:], "--output", "again")
    assert weights("again") == weights("first")
    assert scores_by_epoch("again") == scores_by_epoch("first")
    assert changed_settings(config).keys() >= {"lr", "holdout"}


@pytest.mark.parametrize("command", TRAINING_COMMANDS)
def test_every_setting_of_a_run_is_known_to_its_report(command: str, runs: TrainedRuns) -> None:
    config = read_json(f"runs/{command}-7/config.json")
    other = config | {"settings": dict.fromkeys(config["settings"], "other")}
    assert changed_settings(other).keys() == config["settings"].keys()
