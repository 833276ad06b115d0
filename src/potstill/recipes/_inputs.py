"""What `make` is given: labelled data, checked, and unlabelled sentences."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from potstill.data.check import check_data
from potstill.data.columns import Columns
from potstill.data.corpus import Corpus
from potstill.data.splits import hold_out
from potstill.errors import UserError
from potstill.files import write_text
from potstill.transfer.sources import read_unlabelled


def checked_corpus(data: Any, columns: Columns) -> Corpus:
    """Return the corpus that `data` makes.

    Raises:
        UserError: Something is wrong with it that `check` refuses.
    """
    if isinstance(data, Corpus):
        return data
    findings, corpus = check_data(data, columns)
    refused = [finding for finding in findings.findings if finding.severity == "refuse"]
    if refused or corpus is None:
        more = f", and {len(refused) - 1} more" if len(refused) > 1 else ""
        raise UserError(
            f"{findings.name} can't be trained on as it is: {refused[0]}{more}; "
            "`potstill check` lists what is wrong."
        )
    return corpus


def user_sentences(unlabelled: str | Path | Sequence[str] | None) -> list[str]:
    """Return the user's sentences, once each.

    Raises:
        UserError: The file can't be read, or has an empty line.
    """
    if unlabelled is None:
        sentences = []
    elif isinstance(unlabelled, str | Path):
        sentences = read_unlabelled(Path(unlabelled))
    else:
        sentences = [" ".join(sentence.split()) for sentence in unlabelled]
    return list(dict.fromkeys(filter(None, sentences)))


def write_corpus(corpus: Corpus, folder: Path, fraction: float, seed: int) -> None:
    """Write the splits as JSON lines, of train about a `fraction`, where they are not there yet."""
    for name, split in corpus.splits.items():
        if name == "train" and fraction < 1:
            split, _ = hold_out(split, 1 - fraction, seed)
        groups = split.groups or [""] * len(split)
        lines = []
        for text, label, group in zip(split.sentences, split.labels, groups, strict=True):
            row = {"sentence": text, "label": corpus.labels[label]}
            lines.append(json.dumps(row | ({"group": group} if group else {})))
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / f"{name}.jsonl", "\n".join(lines) + "\n")
