"""The words that edits put in: those of given sentences, and the closed classes of English.

In another language the closed classes never match; the words of the sentences remain.
"""

import itertools
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from potstill.data.text import split_words

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


@dataclass(frozen=True)
class Lexicon:
    """What edits choose words from.

    Attributes:
        sentences: The given sentences, split into words.
        after: The words that follow each word, in alphabetical order; the keys alone matter.
        before: The words that precede each word, like `after`.
        forms: The other forms of each word.
        classes: The other words of the function word classes that each word is in.
    """

    sentences: list[list[str]]
    after: dict[str, dict[str, None]]
    before: dict[str, dict[str, None]]
    forms: dict[str, list[str]]
    classes: dict[str, list[str]]


def read_lexicon(sentences: Sequence[str]) -> Lexicon:
    """Return the lexicon of given sentences."""
    after: dict[str, set[str]] = defaultdict(set)
    before: dict[str, set[str]] = defaultdict(set)
    by_stem: dict[str, set[str]] = defaultdict(set)
    distinct: set[str] = set()
    split = [split_words(sentence) for sentence in sentences]
    for words in split:
        cores = [core(word) for word in words]
        for left, right in itertools.pairwise(cores):
            after[left].add(right)
            before[right].add(left)
        distinct.update(cores)
    for word in distinct:
        if word.islower():
            for stem in possible_stems(word):
                by_stem[stem].add(word)
    forms: dict[str, set[str]] = defaultdict(set)
    for group in [*map(str.split, IRREGULAR), *by_stem.values()]:
        for word in group:
            forms[word] |= set(group) - {word}
    classes: dict[str, set[str]] = defaultdict(set)
    for group in map(str.split, CLOSED_CLASSES):
        for word in group:
            classes[word] |= set(group) - {word}
    return Lexicon(
        split,
        after={k: dict.fromkeys(sorted(v)) for k, v in after.items()},
        before={k: dict.fromkeys(sorted(v)) for k, v in before.items()},
        forms={k: sorted(v) for k, v in forms.items() if v},
        classes={k: sorted(v) for k, v in classes.items() if v},
    )


def core(word: str) -> str:
    """Return a word without the punctuation around it."""
    match = WORD.match(word)
    return match[2] if match else word


def possible_stems(word: str) -> set[str]:
    """Return what may be left of a word without its ending.

    For "stopping" that is "stopping", "stopp" and "stop".
    """
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
