"""Phenomena of relative clauses: gaps and pronouns."""

from random import Random

from potstill.data.minicola.lexicon import IN
from potstill.data.minicola.phrases import (
    DEFINITE,
    Pair,
    action,
    definite,
    dress,
    either,
    human_noun,
    join,
    maybe,
    noun_phrase,
    pick,
    thing,
)
from potstill.data.minicola.words import verbs


def relative_gap(r: Random) -> Pair:
    """The lamp that she repaired (*it) was old; the man who (*he) sneezed left."""
    noun = human_noun(r, IN, r.choice("mf"))
    him, he = ("him", "he") if noun.gender == "m" else ("her", "she")
    who = r.choice(("who", "that"))
    head = noun_phrase(r, noun, False, IN.adjectives["person"], DEFINITE).text
    other = definite(r, IN)
    meeting, _ = pick(r, IN.strict, ("person",))
    verb, rest = action(r, IN)
    did = join(verb.past, rest)
    shape = r.randrange(6)
    if shape == 0:
        helping, _ = pick(r, IN.events, ("person",))
        met = join(head, who, other, meeting.past)
        bad = join(met, him, helping.past, definite(r, IN))
        return dress(r, IN, join(met, helping.past, him), bad)
    tail = join("was", r.choice(IN.moods))
    if shape == 1:
        frame = join(head, who)
        return dress(r, IN, join(frame, did, tail), join(frame, he, did, tail))
    if shape == 2:
        # A pronoun in the relative clause is well where it fills no gap.
        good = join(head, who, meeting.past, other, "said that", he, tail)
        bad = join(head, who, other, meeting.past, him, tail)
        return dress(r, IN, good, bad)
    verb, kind = pick(r, IN.strict, ("tool", "text", "place", "animal"))
    what = thing(r, IN, kind, False, DEFINITE, 0)
    which = r.choice(("that", "which"))
    clause = join(other, verb.past)
    predicate = join("was", maybe(r, 0.4, ("very", "rather")), r.choice(IN.adjectives[kind]))
    if shape == 3:
        frame = join(what, which, clause)
        return dress(r, IN, join(frame, predicate), join(frame, thing(r, IN, kind), predicate))
    if shape == 4:
        frame = join(what, which, clause)
        return dress(r, IN, join(frame, predicate), join(frame, "it", predicate))
    doing = join(verb.past, thing(r, IN, kind))
    frame = join(head, who)
    return dress(r, IN, join(frame, doing, tail), join(frame, verb.past, tail))


def relative_pronoun(r: Random) -> Pair:
    """The man who / *which sneezed; the lamp which / *who she repaired; the girl whose dog left."""
    noun = human_noun(r, IN)
    plural = either(r, 0.3)
    head = noun_phrase(r, noun, plural, IN.adjectives["person"], DEFINITE).text
    was = "were" if plural else "was"
    other = definite(r, IN)
    verb, rest = action(r, IN)
    clause = join(verb.past, rest)
    meeting, _ = pick(r, IN.events, ("person",))
    shape = r.choices(range(5), (2, 4, 5, 1, 2))[0]
    tail = join(was, r.choice(IN.moods))
    if shape == 0:
        subjects = join(clause, tail)
        return dress(r, IN, join(head, "who", subjects), join(head, "which", subjects))
    if shape == 1:
        met = join(other, meeting.past, tail)
        right = r.choice(("who", "whom", "whom", "whom"))
        return dress(r, IN, join(head, right, met), join(head, "which", met))
    if shape == 2:
        verb, kind = pick(r, IN.events, ("tool", "text", "place", "garment"))
        what = thing(r, IN, kind, False, DEFINITE, 0)
        tail = join(other, verb.past, "was", r.choice(IN.adjectives[kind]))
        wrong = r.choice(("who", "who", "who", "whom"))
        return dress(r, IN, join(what, "which", tail), join(what, wrong, tail))
    if shape == 3:
        subjects = join(clause, tail)
        return dress(r, IN, join(head, "who", subjects), join(head, "whom", subjects))
    owned = r.choice(IN.nouns["animal"]).singular
    verb = r.choice(verbs("sleep/slept vanish escape run+/ran/run"))
    wrong = r.choice(("who", "whom", "which"))
    frame = join(owned, verb.past, tail)
    return dress(r, IN, join(head, "whose", frame), join(head, wrong, frame))
