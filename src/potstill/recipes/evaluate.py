"""The command evaluate: a saved model and labelled data in, scores out."""

from collections.abc import Sequence
from pathlib import Path

from potstill.inference.load import load
from potstill.inference.locate import named_or_newest
from potstill.recipes._corpus import evaluation_corpus
from potstill.recipes.console import echo, log_choice, progress_bar, to_json, truncated_line
from potstill.recipes.tables import evaluation_table


def evaluate(
    model_path: Path | None,
    data: str,
    *,
    text_column: str | Sequence[str] | None,
    label_column: str | None,
    precision: str,
    gpt_variant: str | None,
    as_json: bool,
) -> None:
    """Score a saved model on labelled data; see `commands.evaluate`."""
    folder, reason = named_or_newest(model_path)
    classifier = load(folder, gpt_variant=gpt_variant, precision=precision)
    corpus = evaluation_corpus(folder, classifier, data, text_column, label_column)
    if not as_json:
        log_choice("model", f"{classifier.title} in {folder}", reason)
        log_choice("data", corpus.name, corpus.reason)
        for note in corpus.notes:
            echo(note)
    scores = classifier.evaluate(corpus, progress=progress_bar)
    cut = {name: int(classifier.truncated(s.sentences).sum()) for name, s in corpus.splits.items()}
    if as_json:
        about = {"model": str(folder), "parameters": classifier.n_parameters}
        about |= {"data": corpus.describe(), "truncated": cut, "scores": scores}
        print(to_json(about))
        return
    group = "phenomenon" if corpus.name == "MiniCoLA" else "source"
    for name, count in cut.items():
        if count:
            total = len(corpus.splits[name])
            echo(f"{name}: {truncated_line(count, total, classifier.max_length)}")
    for name, split_scores in scores.items():
        echo()
        evaluation_table(name, split_scores, classifier.classes_.tolist(), group)
