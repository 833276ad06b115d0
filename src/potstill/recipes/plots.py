"""The picture of a training run."""

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
    body = BytesIO()
    figure.savefig(body, format="png", dpi=120)
    plt.close(figure)
    write_bytes(file, body.getvalue())
