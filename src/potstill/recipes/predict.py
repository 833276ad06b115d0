"""The command predict: sentences in, classes out; without torch where the student is exported."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

from potstill.data.readers import read_lines, split_lines
from potstill.files import STUDENT_ONNX
from potstill.inference.locate import named_or_newest
from potstill.inference.predictor import load_predictor


def predict(
    sentences: list[str],
    model_path: Path | None,
    precision: str,
    gpt_variant: str | None,
    as_json: bool,
    prepare: Callable[[], None],
) -> None:
    """Classifies sentences; see `commands.predict`. `prepare` is called before torch is loaded."""
    folder, why = named_or_newest(model_path)
    if (folder / STUDENT_ONNX).is_file():
        exported = load_predictor(folder)
        title, labels = exported.title, exported.labels
        shares = exported.probabilities(sentences).tolist()
    else:
        prepare()
        from potstill.inference.classifiers import load_model

        model = load_model(folder, precision, gpt_variant)
        title, labels = model.title, model.labels
        shares = model.logits(sentences).softmax(1).tolist()
    # The answers alone go to standard output, for whoever pipes them on.
    choice = f" (auto: {why})" if why else ""
    print(f"model: {title} in {folder}{choice}", file=sys.stderr)
    width = max(map(len, labels))
    for sentence, row in zip(sentences, shares, strict=True):
        best = row.index(max(row))
        if as_json:
            probabilities = dict(zip(labels, (round(p, 4) for p in row), strict=True))
            line = {"sentence": sentence, "label": labels[best]}
            print(json.dumps(line | {"probabilities": probabilities}, ensure_ascii=False))
        else:
            print(f"{labels[best]:<{width}}  {100 * row[best]:5.1f} %  {sentence}")


def read_sentences(file: str) -> list[str]:
    """The lines of a file, or with "-" of standard input, that hold text.

    Raises:
        UserError: there are none, or they can't be read.
    """
    if file == "-":
        lines = split_lines(sys.stdin.buffer.read(), "standard input")
    else:
        lines = read_lines(Path(file))
    return [text for _, line in lines if (text := line.strip())]
