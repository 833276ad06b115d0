"""An explanation as it is printed."""

from rich.text import Text

from potstill.inference.explain import Explanation
from potstill.recipes.console import printable

# Of each class in turn. Orange and blue are told apart by almost everybody (Okabe and Ito 2008,
# *Color Universal Design*).
CLASS_COLOURS = ("dark_orange", "dodger_blue2", "green4", "orchid", "gold3", "cyan")
SURE = 0.8
# A control character is shown by its picture, which is one character too: positions stay right.
PICTURES = {i: chr(0x2400 + i) for i in range(32)} | dict.fromkeys(range(0x7F, 0xA0), "\ufffd")


def explanation_text(verdict: str, explanation: Explanation) -> Text:
    """Return a verdict with its sentence, and below it each word with the probability of the
    verdict's class after it, in per cent; * marks the decisive word.

    Each word of the sentence has the colour of the most probable class after it, and is bold where
    that is sure.
    """
    sentence = Text(explanation.text.translate(PICTURES))
    for (start, end), row in zip(explanation.spans, explanation.word_probabilities, strict=True):
        sure = "bold " if row.max() > SURE else ""
        sentence.stylize(sure + CLASS_COLOURS[int(row.argmax()) % len(CLASS_COLOURS)], start, end)
    if explanation.decisive is not None:
        sentence.stylize("underline", *explanation.spans[explanation.decisive])
    numbers = "  ".join(
        f"{word.translate(PICTURES)} {100 * score:.0f}{'*' if i == explanation.decisive else ''}"
        for i, (word, score) in enumerate(zip(explanation.words, explanation.scores, strict=True))
    )
    return Text.assemble(printable(verdict), sentence, "\n", " " * len(verdict), (numbers, "dim"))
