"""The command predict: sentences in, classes out; without torch where the student is exported."""

import sys
from pathlib import Path

from potstill.data.readers import read_lines, split_lines
from potstill.files import STUDENT_ONNX
from potstill.inference.classifier import Classifier
from potstill.inference.load import load
from potstill.inference.locate import named_or_newest
from potstill.inference.onnx import OnnxClassifier
from potstill.recipes.console import choice_line, to_json, truncated_line


def predict(
    sentences: list[str],
    model_path: Path | None,
    *,
    precision: str,
    gpt_variant: str | None,
    as_json: bool,
) -> None:
    """Classify sentences; see `commands.predict`."""
    folder, reason = named_or_newest(model_path)
    classifier: Classifier
    if (folder / STUDENT_ONNX).is_file():
        classifier = OnnxClassifier(folder)  # starts in a tenth of torch's time
    else:
        classifier = load(folder, gpt_variant=gpt_variant, precision=precision)
    probabilities = classifier.predict_proba(sentences).tolist()
    # Only the answers go to standard output, for whoever pipes them on.
    print(choice_line("model", f"{classifier.title} in {folder}", reason), file=sys.stderr)
    cut = classifier.truncated(sentences).tolist()
    if any(cut):
        print(truncated_line(sum(cut), len(cut), classifier.max_length), file=sys.stderr)
    labels = classifier.classes_.tolist()
    width = max(map(len, labels))
    for sentence, row, is_cut in zip(sentences, probabilities, cut, strict=True):
        best = row.index(max(row))
        if as_json:
            rounded = dict(zip(labels, (round(p, 4) for p in row), strict=True))
            line = {"sentence": sentence, "label": labels[best], "probabilities": rounded}
            print(to_json(line | ({"cut": True} if is_cut else {})))
        else:
            print(f"{labels[best]:<{width}}  {100 * row[best]:5.1f} %  {sentence}")


def read_sentences(file: str) -> list[str]:
    """Return the lines of a file, or with "-" of standard input, that hold text.

    Raises:
        UserError: There are none, or they can't be read.
    """
    if file == "-":
        lines = split_lines(sys.stdin.buffer.read(), "standard input")
    else:
        lines = read_lines(Path(file))
    return [text for _, line in lines if (text := line.strip())]
