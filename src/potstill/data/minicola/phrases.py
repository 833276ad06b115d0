"""Noun phrases, verb phrases and clauses of MiniCoLA, drawn at random from a lexicon."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from potstill.data.minicola.lexicon import RELATED
from potstill.data.minicola.words import Lexicon, Noun, Verb

Determiners = Mapping[bool, tuple[str, ...]]

HUMAN = ("person", "man", "woman")
DETERMINERS = {
    False: (*["the"] * 6, *["a"] * 3, "this", "that", "my", "our", "their"),
    True: (*["the"] * 6, "two", "three", "these", "those", "my", "our", "their"),
}
# For people who are nobody's relatives and for places.
UNOWNED = {
    False: (*["the"] * 6, *["a"] * 3, "this", "that"),
    True: (*["the"] * 6, "two", "three", "these", "those"),
}
# For heads that a violation must not make ambiguous, and for subjects of questions.
DEFINITE = {
    False: ("the", "the", "the", "this", "that"),
    True: ("the", "the", "the", "these", "those"),
}


class Pair(NamedTuple):
    """A minimal pair: an acceptable sentence and an unacceptable one."""

    good: str
    bad: str


Phenomenon = Callable[[Random], Pair]


@dataclass(frozen=True)
class Phrase:
    """A noun phrase; gender is "m" or "f" where a speaker knows it, else empty."""

    text: str
    plural: bool = False
    gender: str = ""


def either(r: Random, chance: float = 0.5) -> bool:
    """Return True with probability `chance`."""
    return r.random() < chance


def maybe(r: Random, chance: float, options: tuple[str, ...]) -> str:
    """Return one of `options` with probability `chance`, else ""."""
    return r.choice(options) if either(r, chance) else ""


def join(*parts: str) -> str:
    """Join words by single spaces, with "an" in place of "a" before a vowel."""
    words = " ".join(part for part in parts if part).split()
    for i in range(len(words) - 1):
        if words[i] in ("a", "an"):
            words[i] = "an" if words[i + 1][0] in "aeiou" or words[i + 1] == "hour" else "a"
    return " ".join(words)


def sentence(*parts: str, end: str = ".") -> str:
    text = join(*parts)
    return text[0].upper() + text[1:] + end


def question(*parts: str) -> str:
    return sentence(*parts, end="?")


def noun_phrase(
    r: Random,
    noun: Noun,
    plural: bool,
    adjectives: tuple[str, ...] = (),
    determiners: Determiners = DETERMINERS,
    adjective_chance: float = 0.2,
) -> Phrase:
    adjective = maybe(r, adjective_chance, adjectives) if adjectives else ""
    head = noun.plural if plural else noun.singular
    return Phrase(join(r.choice(determiners[plural]), adjective, head), plural, noun.gender)


def human_noun(r: Random, lex: Lexicon, gender: str | None = None) -> Noun:
    """Draw a noun for a person; `gender` is "m", "f", or None for any, known or not."""
    if gender:
        return r.choice(lex.nouns["man" if gender == "m" else "woman"])
    return r.choice(lex.nouns[r.choices(HUMAN, (3, 1, 1))[0]])


def person(
    r: Random,
    lex: Lexicon,
    plural: bool | None = None,
    gender: str | None = None,
    determiners: Determiners = DETERMINERS,
    names: float = 0.2,
) -> Phrase:
    """Draw a person, by name or as a noun phrase; `plural` and `gender` None are any."""
    if plural is None:
        plural = either(r, 0.35)
    if not plural and either(r, names):
        gender = gender or r.choice("mf")
        return Phrase(r.choice(lex.names[gender]), False, gender)
    noun = human_noun(r, lex, gender)
    if determiners is DETERMINERS and noun.singular not in RELATED:
        determiners = UNOWNED
    return noun_phrase(r, noun, plural, lex.adjectives["person"], determiners)


def definite(r: Random, lex: Lexicon, plural: bool | None = None, names: float = 0.3) -> str:
    """Draw a definite person, as the subject of a question requires."""
    return person(r, lex, plural, determiners=DEFINITE, names=names).text


def thing(
    r: Random,
    lex: Lexicon,
    kind: str,
    plural: bool | None = None,
    determiners: Determiners = DETERMINERS,
    adjectives: float = 0.3,
) -> str:
    """Draw an object, perhaps a person, of the semantic class `kind`.

    `adjectives` is the probability of an adjective; 0 if the sentence later says what the thing is
    like.
    """
    if kind == "person":
        return person(r, lex, plural, determiners=determiners).text
    if plural is None:
        plural = either(r, 0.35)
    if kind == "place" and determiners is DETERMINERS:
        determiners = UNOWNED
    noun = r.choice(lex.nouns[kind])
    return noun_phrase(r, noun, plural, lex.adjectives[kind], determiners, adjectives).text


def pick(
    r: Random, table: Mapping[str, tuple[Verb, ...]], kinds: tuple[str, ...] = ()
) -> tuple[Verb, str]:
    """Draw a transitive verb and the class of its object; all verbs are equally probable."""
    pairs = [(verb, kind) for kind in kinds or table for verb in table[kind]]
    return r.choice(pairs)


def action(
    r: Random,
    lex: Lexicon,
    intransitive: float = 0.3,
    determiners: Determiners = DETERMINERS,
) -> tuple[Verb, str]:
    """Draw a verb and what follows it: an object, or perhaps a place if it takes no object."""
    if either(r, intransitive):
        return r.choice(lex.intransitive), maybe(r, 0.6, lex.places)
    verb, kind = pick(r, lex.events)
    return verb, thing(r, lex, kind, determiners=determiners)


def past_clause(r: Random, lex: Lexicon, subject: str = "") -> str:
    verb, rest = action(r, lex)
    return join(subject or person(r, lex).text, verb.past, rest)


def because(r: Random, lex: Lexicon) -> str:
    """Draw an adjunct for sentences in the past; never "when ...", which could be an object."""
    if either(r):
        someone = person(r, lex, determiners=DEFINITE)
        return join(
            "because", someone.text, "were" if someone.plural else "was", r.choice(lex.moods)
        )
    return join(r.choice(("before", "after")), definite(r, lex), r.choice(lex.intransitive).past)


def dress(r: Random, lex: Lexicon, good: str, bad: str, past: bool = False) -> Pair:
    """Turn two clauses into a pair of sentences, sometimes embedded ("She thinks that ...").

    `past`: the clauses are in the past tense, so that a time or a reason may follow.
    """
    chance = r.random()
    if chance < 0.17:
        plural = either(r, 0.3)
        verb = r.choice(lex.thinking)
        form = verb.base if plural else verb.third
        frame = join(definite(r, lex, plural, names=0.7), form, "that")
        return Pair(sentence(frame, good), sentence(frame, bad))
    if past and chance < 0.4:
        time = r.choice(lex.times)
        return Pair(sentence(good, time), sentence(bad, time))
    if past and chance < 0.5:
        reason = because(r, lex)
        return Pair(sentence(good, reason), sentence(bad, reason))
    return Pair(sentence(good), sentence(bad))
