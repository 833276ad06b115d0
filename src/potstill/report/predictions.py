"""What a run answered for each scored sentence: predictions.jsonl in its folder."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from potstill.data.splits import Split
from potstill.errors import UserError
from potstill.files import REPORT, write_text
from potstill.parsing import parse_json

PREDICTIONS = "predictions.jsonl"
MOST_PROBABLE = 5  # classes of a sentence that are kept, and its label


@dataclass(frozen=True)
class Prediction:
    """One sentence of a split.

    Args:
        text: The sentence.
        label: Its class in the data.
        predicted: The class that the model answered.
        probabilities: Those of the most probable classes, and of `label`.
        group: Its source in the data, or empty.
    """

    text: str
    label: str
    predicted: str
    probabilities: dict[str, float]
    group: str = ""

    @property
    def confidence(self) -> float:
        """Return the probability of the class that the model answered."""
        return self.probabilities[self.predicted]


def write_predictions(
    folder: Path,
    labels: Sequence[str],
    splits: dict[str, Split],
    probabilities: dict[str, np.ndarray],
    predicted: dict[str, np.ndarray],
) -> None:
    """Write predictions.jsonl, and a .gitignore by which Git and the Hub leave it and the report
    out: their sentences are of data that may not be ours to publish.

    Args:
        folder: Folder of the run.
        labels: Names of the classes.
        splits: The scored splits.
        probabilities: (N, classes) of each split.
        predicted: (N,) indices of the classes that the model answers, of each split.
    """
    lines = []
    for name, split in splits.items():
        kept = np.argsort(-probabilities[name], axis=1, kind="stable")[:, :MOST_PROBABLE]
        for i, (text, label) in enumerate(zip(split.sentences, split.labels, strict=True)):
            answer = int(predicted[name][i])
            classes = dict.fromkeys([*kept[i].tolist(), label, answer])
            row = {
                "split": name,
                "text": text,
                "label": labels[label],
                "predicted": labels[answer],
                "probabilities": {
                    labels[c]: round(float(probabilities[name][i, c]), 6) for c in classes
                },
            }
            if split.sources:
                row["group"] = split.sources[i]
            lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_text(folder / PREDICTIONS, "".join(lines))
    write_text(folder / ".gitignore", f"{PREDICTIONS}\n{REPORT}\n")


def read_predictions(folder: Path) -> dict[str, list[Prediction]]:
    """Return the predictions of each split; none where the run recorded none.

    Raises:
        UserError: The file is damaged; the message names its line.
    """
    file = folder / PREDICTIONS
    if not file.is_file():
        return {}
    splits: dict[str, list[Prediction]] = {}
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{file} can't be read: {error}.") from error
    for number, line in enumerate(text.split("\n"), 1):
        if not line:
            continue
        try:
            row = parse_json(line)
            probabilities = {str(k): float(v) for k, v in row["probabilities"].items()}
            prediction = Prediction(
                text=str(row["text"]),
                label=str(row["label"]),
                predicted=str(row["predicted"]),
                probabilities=probabilities,
                group=str(row.get("group", "")),
            )
            if not {prediction.label, prediction.predicted} <= probabilities.keys():
                raise ValueError("a class has no probability")
            splits.setdefault(str(row["split"]), []).append(prediction)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{file}:{number} is damaged ({error}); train the model again."
            ) from error
    return splits
