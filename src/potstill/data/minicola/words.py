"""Nouns, verbs and the tables that hold them, read from compact lists of words."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Noun:
    """A count noun; gender is "m" or "f" where the noun fixes it, else empty."""

    singular: str
    plural: str
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
    """The open word classes that every phenomenon draws on.

    `nouns` and `adjectives` are by semantic class, `events` are transitive verbs by the class of
    their object; the object of those in `strict` can be neither omitted nor one of two objects.
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
    """Return the regular plural of a noun, or the third person of a verb."""
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2] not in "aeou":
        return word[:-1] + "ies"
    return word + "s"


def nouns(words: str, gender: str = "") -> tuple[Noun, ...]:
    """Read nouns from a list like "boy man/men"; irregular plurals follow a slash."""
    pairs = [word.partition("/") for word in words.split()]
    return tuple(Noun(singular, plural or _s(singular), gender) for singular, _, plural in pairs)


def verbs(words: str) -> tuple[Verb, ...]:
    """Read verbs from a list like "help hug+ write/wrote/written"; + doubles the last letter."""
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
