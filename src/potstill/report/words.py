"""The words of a sentence, each with what the model answers if the sentence ends there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from potstill.errors import UserError
from potstill.inference.explain import Explanation
from potstill.inference.load import load

Explain = Callable[[list[str]], list[Explanation]]


@dataclass(frozen=True)
class Piece:
    """A part of a sentence: a word, or what is between two.

    Args:
        text: The part.
        score: Probability of the answered class after the word; None between words and beyond the
            model's maximum length.
        decisive: Whether the answer is held from this word on.
    """

    text: str
    score: float | None = None
    decisive: bool = False


def explainer(folder: Path) -> Explain | None:
    """Return what explains the answers of the model in `folder`; None where it can't."""
    try:
        classifier = load(folder)
        classifier.explain("One.")
    except UserError:  # a base that is not here
        return None
    return classifier.explain


def pieces_of(texts: Sequence[str], explain: Explain | None) -> dict[str, list[Piece]]:
    """Return the pieces of each text; without `explain` a text is one piece."""
    texts = list(dict.fromkeys(texts))
    if explain is None or not texts:
        return {text: [Piece(text)] for text in texts}
    return {e.text: _pieces(e) for e in explain(texts)}


def _pieces(explanation: Explanation) -> list[Piece]:
    pieces, end = [], 0
    scores = explanation.scores.tolist()
    for i, (span, score) in enumerate(zip(explanation.spans, scores, strict=True)):
        pieces.append(Piece(explanation.text[end : span[0]]))
        end = span[1]
        text = explanation.text[span[0] : end]
        pieces.append(Piece(text, score, i == explanation.decisive))
    pieces.append(Piece(explanation.text[end:]))
    return [piece for piece in pieces if piece.text]
