"""A sentence of a transfer set: where it comes from, and what the teacher says of it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class SourceKind(StrEnum):
    """The kinds of source; the values are the names on disk."""

    USER = "own"
    SAMPLED = "sampled"
    EDITED = "edited"


@dataclass(frozen=True)
class Origin:
    """Where a sentence comes from: the kind of source and the edits that made it, if any."""

    kind: SourceKind
    edits: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Origin":
        """Read what `str` writes: "own", "sampled" or "edited:swap delete".

        Raises:
            ValueError: It names no kind of source.
        """
        kind, _, edits = text.partition(":")
        return cls(SourceKind(kind), tuple(edits.split()))

    def __str__(self) -> str:
        return f"{self.kind}:{' '.join(self.edits)}" if self.edits else str(self.kind)


class Candidate(NamedTuple):
    """A sentence that may enter a set; `parent` is the one that an edit was made of, else ""."""

    sentence: str
    origin: Origin
    parent: str = ""


@dataclass(frozen=True)
class LabelledSentence:
    """A sentence of a set with the teacher's logits.

    Attributes:
        sentence: The text.
        origin: Where it comes from.
        parent: The sentence that an edited one was made of, else "".
        logits: One per class.
        word_logits: The logits of the sentence up to each of its words; empty in a set that was
            made without them.
    """

    sentence: str
    origin: Origin
    parent: str
    logits: list[float]
    word_logits: list[list[float]]


def normal(sentence: str) -> str:
    """Return the form that duplicates share: without case, extra spaces and the final stop."""
    return " ".join(sentence.casefold().split()).rstrip(" .?!")
