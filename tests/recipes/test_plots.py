"""The pictures of a training run: whole PNGs, whatever was measured."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot as plt
from PIL import Image

from potstill.recipes.plots import reliability_file, reliability_plot, training_plot


def records(epochs: int, splits: list[str]) -> list[dict[str, object]]:
    scores = {"loss": 0.7, "accuracy": 0.6, "mcc": 0.1}
    return [{"epoch": e} | {split: scores for split in splits} for e in range(1, epochs + 1)]


@pytest.mark.parametrize("epochs", [1, 40])
@pytest.mark.parametrize("splits", [["holdout", "ood"], ["ood"], []], ids="+".join)
def test_the_plot_is_a_png_of_sane_size(epochs: int, splits: list[str], tmp_path: Path) -> None:
    file = tmp_path / "plot.png"
    majority = {split: 0.69 for split in ("train", "dev", *splits)}
    training_plot(
        records(epochs, ["train", "dev", *splits]),
        chosen_epoch=1,
        majority=majority,
        title=r"A folder named $\frac$",
        file=file,
    )
    with Image.open(file) as picture:
        picture.load()
        assert picture.format == "PNG"
        width, height = picture.size
        assert 1000 <= width <= 3000
        assert 400 <= height <= 1500
        assert len(np.unique(np.asarray(picture.convert("L")))) > 20
    assert [f.name for f in tmp_path.iterdir()] == ["plot.png"]
    assert not plt.get_fignums()


def test_an_earlier_plot_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "plot.png"
    bodies = []
    for title in ("One", "Two"):
        history = records(2, ["train", "dev"])
        training_plot(history, chosen_epoch=2, majority={"dev": 0.5}, title=title, file=file)
        bodies.append(file.read_bytes())
    assert bodies[0] != bodies[1]


def test_every_split_and_baseline_is_in_the_legend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = []
    monkeypatch.setattr(plt, "close", figures.append)
    splits = ["train", "holdout", "dev", "ood"]
    training_plot(
        records(2, splits),
        chosen_epoch=2,
        majority=dict.fromkeys(splits, 0.5),
        title="A title",
        file=tmp_path / "p.png",
    )
    (figure,) = figures
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {
        "train (running)",
        "held out of train",
        "dev",
        "out-of-domain dev",
        "epoch chosen",
        "majority class (dev)",
    }
    assert figure.get_suptitle() == "A title"
    monkeypatch.undo()
    plt.close(figure)


@pytest.mark.parametrize("splits", [["holdout"], ["holdout", "dev", "ood"]], ids="+".join)
def test_the_reliability_diagram_has_every_split_before_and_after(
    splits: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = []
    monkeypatch.setattr(plt, "close", figures.append)
    counts = [0, 4, *[0] * 12, 9]
    bins = {"ece": 0.12, "counts": counts}
    bins |= {"confidence": [0.1] * 15, "accuracy": [0.25] * 15}
    calibration = {
        "temperature": 1.5,
        "splits": {name: {"before": bins, "after": bins | {"ece": 0.01}} for name in splits},
    }
    file = tmp_path / "reliability.png"
    reliability_plot(calibration, title="A title", file=file)
    with Image.open(file) as picture:
        picture.load()
        assert picture.format == "PNG"
    (figure,) = figures
    titles = [axis.get_title() for axis in figure.axes]
    assert len(titles) == 2 * len(splits)
    assert "held out of train, before: ECE 12.0 %" in titles
    assert "held out of train, after: ECE 1.0 %" in titles
    assert all(len(axis.patches) == 2 for axis in figure.axes)  # bins that hold sentences
    assert "temperature 1.50" in figure.get_suptitle()
    monkeypatch.undo()
    plt.close(figure)


def test_the_reliability_diagram_is_next_to_the_plot() -> None:
    expected = Path("plots/rnn_reliability_plot.png")
    assert reliability_file(Path("plots/rnn_training_plot.png")) == expected


def test_letters_that_no_font_has_are_no_warning(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        training_plot(
            records(2, ["train", "dev"]),
            chosen_epoch=1,
            majority={"dev": 0.5},
            title="感情 \U0001f600",
            file=tmp_path / "plot.png",
        )
    assert (tmp_path / "plot.png").is_file()
