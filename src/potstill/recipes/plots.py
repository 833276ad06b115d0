"""The pictures of a training run: how it went, and how reliable its probabilities are."""

import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator

from potstill.files import write_bytes

# Okabe and Ito's colours, which colour-blind readers can tell apart.
SPLITS = {
    "train": ("train (running)", "#0072B2", "o"),
    "holdout": ("held out of train", "#56B4E9", "v"),
    "dev": ("dev", "#D55E00", "s"),
    "ood": ("out-of-domain dev", "#009E73", "^"),
}
PANELS = {"loss": "loss (nats)", "accuracy": "accuracy", "mcc": "Matthews correlation (MCC)"}


def training_plot(
    history: list[dict[str, Any]],
    *,
    chosen_epoch: int,
    majority: dict[str, float],
    title: str,
    file: Path,
) -> None:
    """Draw loss, accuracy and MCC of every split by epoch into `file`, whole or not at all.

    Args:
        history: Metrics of every epoch, as in a `TrainResult`.
        chosen_epoch: Number of the epoch whose weights are saved.
        majority: Accuracy of the most frequent class, by split.
    """
    epochs = [metrics["epoch"] for metrics in history]
    figure, axes = plt.subplots(1, 3, figsize=(14, 5), layout="constrained")
    for axis, (key, label) in zip(axes, PANELS.items(), strict=True):
        for split, (_, colour, marker) in SPLITS.items():
            if split not in history[0]:
                continue
            values = [metrics[split][key] for metrics in history]
            marks = marker if len(epochs) <= 30 else None
            axis.plot(epochs, values, color=colour, marker=marks, label=SPLITS[split][0])
        axis.axvline(chosen_epoch, color="0.6", linestyle=":", zorder=0, label="epoch chosen")
        axis.set_xlabel("epoch")
        axis.set_title(label)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
        axis.grid(alpha=0.25)
    reference = "dev" if "dev" in majority else list(majority)[-1]
    label = f"majority class ({SPLITS[reference][0]})"
    axes[1].axhline(majority[reference], color="black", linestyle="--", linewidth=1, label=label)
    axes[2].axhline(0, color="black", linestyle="--", linewidth=1)
    handles, labels = axes[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.suptitle(title, parse_math=False)  # a $ in a name is a $
    _save(figure, file)


def reliability_file(training_plot: Path) -> Path:
    """Return where the reliability diagram of a run is, next to its training plot."""
    return training_plot.with_name(training_plot.name.replace("training", "reliability"))


def reliability_plot(calibration: dict[str, Any], *, title: str, file: Path) -> None:
    """Draw how often a model is right by how sure it is, before and after calibration.

    Args:
        calibration: As in results.json.
    """
    splits = {name: calibration["splits"][name] for name in SPLITS if name in calibration["splits"]}
    figure, axes = plt.subplots(
        2, len(splits), figsize=(4 * len(splits), 8), layout="constrained", squeeze=False
    )
    for column, (split, by_stage) in enumerate(splits.items()):
        for axis, stage in zip(axes[:, column], ("before", "after"), strict=True):
            bins = by_stage[stage]
            n_bins = len(bins["counts"])
            filled = [i for i, count in enumerate(bins["counts"]) if count]
            _, colour, _ = SPLITS[split]
            axis.bar(
                [(i + 0.5) / n_bins for i in filled],
                [bins["accuracy"][i] for i in filled],
                width=1 / n_bins,
                color=colour,
                edgecolor="white",
            )
            confidence = [bins["confidence"][i] for i in filled]
            accuracy = [bins["accuracy"][i] for i in filled]
            axis.vlines(confidence, accuracy, confidence, color="black", linewidth=1)
            axis.plot([0, 1], [0, 1], color="0.5", linestyle="--", linewidth=1)
            name = "out of domain" if split == "ood" else SPLITS[split][0]
            axis.set_title(f"{name}, {stage}: ECE {100 * bins['ece']:.1f} %")
            axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="probability of the answer", aspect="equal")
    for axis in axes[:, 0]:
        axis.set_ylabel("fraction right")
    temperature = f"temperature {calibration['temperature']:.2f}"
    figure.suptitle(f"{title}\n{temperature}", parse_math=False)
    _save(figure, file)


def _save(figure: Any, file: Path) -> None:
    """Write a figure, whole or not at all."""
    body = BytesIO()
    with warnings.catch_warnings():
        # A name in a title may have letters that no font here has; it is drawn with boxes.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(body, format="png", dpi=120)
    plt.close(figure)
    write_bytes(file, body.getvalue())
