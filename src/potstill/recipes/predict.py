"""The command predict: texts in, classes out as they come; without torch where the student is
exported."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from potstill.data.stream import Chunk, Source, open_source, texts_of
from potstill.errors import UsageError
from potstill.files import STUDENT_ONNX, check_writable
from potstill.inference.classifier import UNSURE, Classifier, Threshold
from potstill.inference.load import load
from potstill.inference.locate import named_or_newest
from potstill.inference.onnx import OnnxClassifier
from potstill.recipes._answers import Answer, answer_format, open_writer
from potstill.recipes.console import choice_line, note, stream_progress, truncated_line


def predict(
    sentences: list[str],
    file: str,
    model_path: Path | None,
    *,
    precision: str,
    gpt_variant: str | None,
    text_column: str | Sequence[str] | None = None,
    output: Path | None = None,
    threshold: str | None = None,
    as_json: bool = False,
    as_tsv: bool = False,
    explain: bool = False,
) -> None:
    """Classify sentences, or without any those of a file; see `commands.predict`."""
    if output:
        check_writable(output.parent, "`output`")
    with _open(sentences, file, text_column) as source:
        kind = answer_format(source, output, as_json=as_json, as_tsv=as_tsv)
        if explain and (kind not in ("text", "json") or (kind == "text" and output)):
            raise UsageError("`explain` is for text on standard output, and for `json`.")
        folder, reason = named_or_newest(model_path)
        classifier = load_fast(folder, gpt_variant=gpt_variant, precision=precision)
        least = classifier.check_threshold(_read_threshold(threshold))
        labels = tuple(classifier.classes_.tolist())
        width = max(map(len, (*labels, UNSURE) if least else labels))
        total = cut = 0
        quiet = output is None and sys.stdout.isatty()
        with (
            open_writer(kind, source, labels, output, width) as write,
            stream_progress(source.size, hidden=quiet) as show,
        ):
            for chunk in source.chunks:
                answers = _answer(classifier, chunk, least, explain)
                if not total:
                    # Only the answers go to standard output, for whoever pipes them on.
                    line = choice_line("model", f"{classifier.title} in {folder}", reason)
                    note(line)
                    if source.note:
                        note(source.note)
                write(chunk, answers)
                if output is None:
                    sys.stdout.flush()
                total += len(answers)
                cut += sum(answer.cut for answer in answers)
                show(source.position(), total)
    if cut:
        note(truncated_line(cut, total, classifier.max_length))
    if output:
        note(f"answers: {output}, {total} texts")


@contextmanager
def _open(
    sentences: list[str], file: str, text_column: str | Sequence[str] | None
) -> Iterator[Source]:
    if sentences:
        yield texts_of(sentences)
    else:
        with open_source(file, text_column) as source:
            yield source


def _answer(classifier: Classifier, chunk: Chunk, threshold: float, explain: bool) -> list[Answer]:
    """Return an answer for every text of a chunk; an empty one for a blank text."""
    texts = [text for text in chunk.texts if text]
    if not texts:
        return [Answer()] * len(chunk.texts)
    explanations = classifier.explain(texts) if explain else [None] * len(texts)
    probabilities = classifier.predict_proba(texts)
    labels = classifier.answers(probabilities, threshold)
    chosen = classifier.decide(probabilities)
    cut = classifier.truncated(texts)
    answers = (
        Answer(label, row[index], row, is_cut, explanation)
        for label, index, row, is_cut, explanation in zip(
            labels.tolist(),
            chosen.tolist(),
            probabilities.tolist(),
            cut.tolist(),
            explanations,
            strict=True,
        )
    )
    return [next(answers) if text else Answer() for text in chunk.texts]


def _read_threshold(threshold: str | None) -> Threshold:
    if threshold is None:
        return None
    if threshold == "goal":
        return "goal"
    try:
        return float(threshold)
    except ValueError as error:
        raise UsageError(f"`threshold` {threshold!r} is neither a probability nor goal.") from error


def load_fast(
    folder: Path, *, gpt_variant: str | None = None, precision: str = "auto"
) -> Classifier:
    """Load a saved model as `load` does; a student that is exported in its folder is run without
    torch, which takes ten times as long to start."""
    if (folder / STUDENT_ONNX).is_file():
        return OnnxClassifier(folder)
    return load(folder, gpt_variant=gpt_variant, precision=precision)
