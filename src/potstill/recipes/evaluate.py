"""The command evaluate: a saved model and labelled data in, scores out."""

import json
from pathlib import Path

from potstill.console import say, say_choice
from potstill.inference.classifiers import load_model
from potstill.inference.locate import named_or_newest
from potstill.metrics import evaluation
from potstill.recipes._corpus import evaluation_corpus
from potstill.recipes.tables import evaluation_table


def evaluate(
    model_path: Path | None,
    data: str,
    text_column: str | None,
    label_column: str | None,
    precision: str,
    gpt_variant: str | None,
    as_json: bool,
) -> None:
    """Scores a saved model on labelled data; see `commands.evaluate`."""
    folder, why = named_or_newest(model_path)
    model = load_model(folder, precision, gpt_variant)
    corpus = evaluation_corpus(folder, model, data, text_column, label_column)
    if not as_json:
        say_choice("model", f"{model.title} in {folder}", why)
        say_choice("data", corpus.name, corpus.reason)
    scores = {}
    for name, split in corpus.splits.items():
        logits = model.logits(split.sentences).numpy()
        scores[name] = evaluation(logits, split.labels, split.sources)
        if not as_json:
            group = "phenomenon" if corpus.name == "MiniCoLA" else "source"
            say()
            evaluation_table(name, scores[name], model.labels, group)
    if as_json:
        about = {"model": str(folder), "parameters": model.parameters, "data": corpus.describe()}
        print(json.dumps(about | {"scores": scores}, ensure_ascii=False))
