"""Nouns, verbs and the tables that hold them, read from compact lists of words."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Noun:
    """A count noun; gender is "m" or "f" where the noun fixes it, else empty."""

    one: str
    many: str
    gender: str = ""


@dataclass(frozen=True)
class Verb:
    """The five forms of a verb."""

    base: str
    third: str
    past: str
    participle: str
    ing: str


@dataclass(frozen=True)
class Relation:
    """A noun with a prepositional complement, "key to the cellar", and what can be said of it."""

    noun: Noun
    preposition: str
    complements: tuple[Noun, ...]
    adjectives: tuple[str, ...]


@dataclass(frozen=True)
class Lexicon:
    """The open classes that every phenomenon draws on.

    nouns and adjectives go by class; events hold transitive verbs by the class of their
    object; strict are those whose object can't be left out and can't be one of two.
    """

    names: dict[str, tuple[str, ...]]
    nouns: dict[str, tuple[Noun, ...]]
    adjectives: dict[str, tuple[str, ...]]
    moods: tuple[str, ...]
    events: dict[str, tuple[Verb, ...]]
    strict: dict[str, tuple[Verb, ...]]
    intransitive: tuple[Verb, ...]
    thinking: tuple[Verb, ...]
    places: tuple[str, ...]
    times: tuple[str, ...]


def _s(word: str) -> str:
    """The plural of a noun, the third person of a verb."""
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2] not in "aeou":
        return word[:-1] + "ies"
    return word + "s"


def nouns(words: str, gender: str = "") -> tuple[Noun, ...]:
    """Nouns from "boy man/men": a regular plural, or the one after the slash."""
    pairs = [word.partition("/") for word in words.split()]
    return tuple(Noun(one, many or _s(one), gender) for one, _, many in pairs)


def verbs(words: str) -> tuple[Verb, ...]:
    """Verbs from "help hug+ write/wrote/written"; a plus doubles the last letter."""
    return tuple(_verb(word) for word in words.split())


def _verb(entry: str) -> Verb:
    base, *irregular = entry.split("/")
    base, double = base.rstrip("+"), base.endswith("+")
    stem = base + base[-1] if double else base
    if base.endswith("e") and not base.endswith(("ee", "ye")):
        stem = base[:-1]
    past = base + "d" if base.endswith("e") else stem + "ed"
    if base.endswith("y") and base[-2] not in "aeo":
        past = base[:-1] + "ied"
    if irregular:
        past, participle = irregular[0], irregular[-1]
    else:
        participle = past
    return Verb(base, _s(base), past, participle, stem + "ing")


def verbs_by_class(table: dict[str, str]) -> dict[str, tuple[Verb, ...]]:
    return {kind: verbs(words) for kind, words in table.items()}


def words_by_class(table: dict[str, str]) -> dict[str, tuple[str, ...]]:
    return {kind: tuple(words.split()) for kind, words in table.items()}
