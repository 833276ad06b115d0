"""Minimal edits: sentences a step away from given ones, on either side of what is acceptable.

What an edit puts in comes from the given sentences themselves, or from the closed classes of
English below; in another language those never match and the other edits remain.
"""

import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from potstill.transfer.sentences import LabelledSentence

CLOSED_CLASSES = [
    "a an the this that these those some any no every each all both many much few several most",
    "I you he she it we they one",
    "me you him her it us them one",
    "my your his her its our their whose",
    "I me my mine myself",
    "you your yours yourself",
    "he him his himself",
    "she her hers herself",
    "it its itself",
    "we us our ours ourselves",
    "they them their theirs themselves",
    "who whom whose",
    "myself yourself himself herself itself ourselves themselves them her",
    "am is are was were be been being",
    "has have had having is was",
    "do does did done doing to",
    "can could will would shall should may might must",
    "who whom which what whose that where when why how",
    "of in on at to from with by for about into onto over under through against between near",
    "that whether if because although while since before after until unless",
    "and or but nor than as",
    "not never no always ever often seldom already yet still",
    "any some no ever sometimes anything something nothing anybody somebody nobody anyone someone",
    "more most less least very so too as much",
    "there it here they this",
]
IRREGULAR = [
    "go goes went gone going",
    "come comes came coming",
    "give gives gave given giving",
    "take takes took taken taking",
    "see sees saw seen seeing",
    "know knows knew known knowing",
    "eat eats ate eaten eating",
    "write writes wrote written writing",
    "break breaks broke broken breaking",
    "speak speaks spoke spoken speaking",
    "choose chooses chose chosen choosing",
    "drive drives drove driven driving",
    "fall falls fell fallen falling",
    "begin begins began begun beginning",
    "sing sings sang sung singing",
    "drink drinks drank drunk drinking",
    "run runs ran running",
    "make makes made making",
    "say says said saying",
    "tell tells told telling",
    "think thinks thought thinking",
    "buy buys bought buying",
    "bring brings brought bringing",
    "find finds found finding",
    "leave leaves left leaving",
    "keep keeps kept keeping",
    "put puts putting",
    "read reads reading",
    "man men",
    "woman women",
    "child children",
    "mouse mice",
    "foot feet",
    "person people",
]
ENDINGS = ("ing", "ed", "es", "s", "d", "en", "ly", "er", "est", "")
WORD = re.compile(r"^(\W*)(.*?)(\W*)$", re.DOTALL)

Words = list[str]
Edit = Callable[[Words, "Lexicon", np.random.Generator], Words | None]


@dataclass(frozen=True)
class Lexicon:
    """What edits draw on: the sentences, as words; which words follow and precede each word;
    the forms of each word; the classes of function words each word is in."""

    sentences: list[Words]
    after: dict[str, list[str]]
    before: dict[str, list[str]]
    forms: dict[str, list[str]]
    classes: dict[str, list[str]]


def read_lexicon(sentences: Sequence[str]) -> Lexicon:
    after: dict[str, set[str]] = defaultdict(set)
    before: dict[str, set[str]] = defaultdict(set)
    stems: dict[str, set[str]] = defaultdict(set)
    split = [s.split() for s in sentences]
    for words in split:
        cores = [core(word) for word in words]
        for left, right in itertools.pairwise(cores):
            after[left].add(right)
            before[right].add(left)
        for word in cores:
            if word.islower():
                for stem in stems_of(word):
                    stems[stem].add(word)
    forms: dict[str, set[str]] = defaultdict(set)
    for group in [*map(str.split, IRREGULAR), *stems.values()]:
        for word in group:
            forms[word] |= set(group) - {word}
    classes: dict[str, set[str]] = defaultdict(set)
    for group in map(str.split, CLOSED_CLASSES):
        for word in group:
            classes[word] |= set(group) - {word}
    tables = (after, before, forms, classes)
    return Lexicon(split, *({k: sorted(v) for k, v in t.items() if v} for t in tables))


def core(word: str) -> str:
    """A word without the punctuation around it."""
    match = WORD.match(word)
    return match[2] if match else word


def stems_of(word: str) -> set[str]:
    """What may be left of a word without its ending: "stopping" has "stopping", "stopp", "stop"."""
    stems = set()
    for ending in ENDINGS:
        stem = word[: len(word) - len(ending)] if ending else word
        if word.endswith(ending) and len(stem) >= 3:
            stems.add(stem.rstrip("e"))
            if ending and stem[-1] == stem[-2]:
                stems.add(stem[:-1])
            if ending and stem[-1] == "i":
                stems.add(f"{stem[:-1]}y")
    return stems


def _put(words: Words, place: int, new: str) -> Words:
    """`words` with the word at `place` replaced, the punctuation around it kept."""
    head, _, tail = WORD.match(words[place]).groups()  # type: ignore[union-attr]
    return [*words[:place], f"{head}{new}{tail}", *words[place + 1 :]]


def _replace_one(
    words: Words, table: dict[str, list[str]], rng: np.random.Generator
) -> Words | None:
    """`words` with one of those that `table` has replaced by one of its alternatives."""
    places = [i for i, word in enumerate(words) if core(word) in table]
    if not places:
        return None
    place = int(rng.choice(places))
    return _put(words, place, str(rng.choice(table[core(words[place])])))


def change_form(words: Words, lexicon: Lexicon, rng: np.random.Generator) -> Words | None:
    """walks for walked, book for books."""
    return _replace_one(words, lexicon.forms, rng)


def change_function_word(words: Words, lexicon: Lexicon, rng: np.random.Generator) -> Words | None:
    """him for he, of for to, has for is."""
    return _replace_one(words, lexicon.classes, rng)


def substitute(words: Words, lexicon: Lexicon, rng: np.random.Generator) -> Words | None:
    """Another word for a word: one that was seen between the same neighbours, or beside one."""
    place = int(rng.integers(len(words)))
    left = core(words[place - 1]) if place else ""
    right = core(words[place + 1]) if place + 1 < len(words) else ""
    fits_left, fits_right = lexicon.after.get(left, []), lexicon.before.get(right, [])
    fits = sorted(set(fits_left) & set(fits_right)) or fits_left or fits_right
    fits = [word for word in fits if word and word != core(words[place])]
    return _put(words, place, str(rng.choice(fits))) if fits else None


def delete(words: Words, lexicon: Lexicon, rng: np.random.Generator) -> Words | None:
    if len(words) < 3:
        return None
    place = int(rng.integers(len(words)))
    tail = WORD.match(words[place])[3]  # type: ignore[index]
    rest = words[:place] + words[place + 1 :]
    if place == len(words) - 1:
        rest[-1] += tail
    return rest


def insert(words: Words, lexicon: Lexicon, rng: np.random.Generator) -> Words | None:
    """One more word, seen after the one it follows."""
    place = int(rng.integers(len(words)))
    fits = lexicon.after.get(core(words[place]), [])
    if not fits or place == len(words) - 1:
        return None
    return [*words[: place + 1], str(rng.choice(fits)), *words[place + 1 :]]


def swap(words: Words, lexicon: Lexicon, rng: np.random.Generator) -> Words | None:
    """Two neighbours change places."""
    if len(words) < 2:
        return None
    place = int(rng.integers(len(words) - 1))
    one, other = core(words[place]), core(words[place + 1])
    return _put(_put(words, place, other), place + 1, one)


def move(words: Words, lexicon: Lexicon, rng: np.random.Generator) -> Words | None:
    """One to three words in a row stand elsewhere."""
    if len(words) < 4:
        return None
    size = int(rng.integers(1, 4))
    start = int(rng.integers(len(words) - size + 1))
    cores = [core(word) for word in words]
    rest = cores[:start] + cores[start + size :]
    to = int(rng.integers(len(rest) + 1))
    moved = rest[:to] + cores[start : start + size] + rest[to:]
    return _put([*moved[:-1], words[-1]], len(words) - 1, moved[-1])


def splice(words: Words, lexicon: Lexicon, rng: np.random.Generator) -> Words | None:
    """The beginning of this sentence and the end of another."""
    other = lexicon.sentences[int(rng.integers(len(lexicon.sentences)))]
    cut = int(rng.integers(1, max(2, len(words))))
    return [*words[:cut], *other[-max(1, len(other) - cut) :]]


EDITS: dict[str, Edit] = {
    edit.__name__: edit
    for edit in (
        change_form,
        change_function_word,
        substitute,
        delete,
        insert,
        swap,
        move,
        splice,
    )
}


def edit_sentence(
    sentence: str, name: str, lexicon: Lexicon, rng: np.random.Generator
) -> str | None:
    """`sentence` after the edit called `name`; None where that does not apply or changes nothing.

    A capital at its beginning stays at the beginning.
    """
    words = sentence.split()
    if not words:
        return None
    # A name at the beginning keeps its capital wherever it goes.
    first = words[0]
    if first.lower() in lexicon.after and first != "I":
        words[0] = first.lower()
    edited = EDITS[name](words, lexicon, rng)
    if not edited:
        return None
    if first[:1].isupper():
        edited = [edited[0][:1].upper() + edited[0][1:], *edited[1:]]
    text = " ".join(edited)
    return text if text != sentence and core(edited[0]) else None


@dataclass(frozen=True)
class EditStats:
    """How often the teacher gave each label to sentences that each edit had a part in.

    Attributes:
        counts: (edits, classes), edits in the order of `EDITS`.
    """

    counts: np.ndarray

    @classmethod
    def zero(cls, classes: int) -> "EditStats":
        return cls(np.zeros((len(EDITS), classes)))

    def add(self, rows: list[LabelledSentence]) -> "EditStats":
        """Return the statistics with these sentences counted too."""
        counts = self.counts.copy()
        index = {name: i for i, name in enumerate(EDITS)}
        for row in rows:
            for name in row.origin.edits:
                if name in index:
                    counts[index[name], int(np.argmax(row.logits))] += 1
        return EditStats(counts)

    def probs(self) -> np.ndarray:
        """Return the probability to draw each edit, (edits,).

        It is proportional to how often the edit led to the label that is rare so far.
        """
        counts = self.counts + 1.0
        rates = counts[:, counts.sum(0).argmin()] / counts.sum(1)
        return rates / rates.sum()
