"""The command predict: sentences in, classes out; without torch where the student is exported."""

import sys
from pathlib import Path

from potstill.data.readers import read_lines, split_lines
from potstill.files import STUDENT_ONNX
from potstill.inference.classifier import Classifier
from potstill.inference.explain import by_label, explanation_json
from potstill.inference.load import load
from potstill.inference.locate import named_or_newest
from potstill.inference.onnx import OnnxClassifier
from potstill.recipes.console import choice_line, console, to_json, truncated_line
from potstill.recipes.explanation import explanation_text


def predict(
    sentences: list[str],
    model_path: Path | None,
    *,
    precision: str,
    gpt_variant: str | None,
    as_json: bool,
    explain: bool = False,
) -> None:
    """Classify sentences; see `commands.predict`."""
    folder, reason = named_or_newest(model_path)
    classifier = load_fast(folder, gpt_variant=gpt_variant, precision=precision)
    explanations = classifier.explain(sentences) if explain else []
    if explain:
        probabilities = [e.probabilities.tolist() for e in explanations]
    else:
        probabilities = classifier.predict_proba(sentences).tolist()
    # Only the answers go to standard output, for whoever pipes them on.
    print(choice_line("model", f"{classifier.title} in {folder}", reason), file=sys.stderr)
    cut = classifier.truncated(sentences).tolist()
    if any(cut):
        print(truncated_line(sum(cut), len(cut), classifier.max_length), file=sys.stderr)
    labels = tuple(classifier.classes_.tolist())
    width = max(map(len, labels))
    for i, (sentence, row, is_cut) in enumerate(zip(sentences, probabilities, cut, strict=True)):
        best = row.index(max(row))
        if as_json:
            line = {
                "sentence": sentence,
                "label": labels[best],
                "probabilities": by_label(labels, row),
            }
            if explain:
                line |= explanation_json(explanations[i])
            print(to_json(line | ({"cut": True} if is_cut else {})))
        else:
            verdict = f"{labels[best]:<{width}}  {100 * row[best]:5.1f} %  "
            if explain:
                console.print(explanation_text(verdict, explanations[i]))
            else:
                print(f"{verdict}{sentence}")


def load_fast(
    folder: Path, *, gpt_variant: str | None = None, precision: str = "auto"
) -> Classifier:
    """Load a saved model as `load` does; a student that is exported in its folder is run without
    torch, which takes ten times as long to start."""
    if (folder / STUDENT_ONNX).is_file():
        return OnnxClassifier(folder)
    return load(folder, gpt_variant=gpt_variant, precision=precision)


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
