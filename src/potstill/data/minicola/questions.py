"""Phenomena of questions: gap, inversion, islands."""

from random import Random

from potstill.data.minicola.lexicon import IN, MANNER_VERBS, STRICT_INTRANSITIVE
from potstill.data.minicola.phrases import (
    HUMAN,
    Pair,
    definite,
    either,
    join,
    pick,
    question,
    sentence,
    thing,
)
from potstill.data.minicola.words import Verb

PICTURES = (("picture", "of"), ("story", "about"), ("letter", "from"), ("rumor", "about"))
EFFECTS = ("surprise", "bother", "annoy", "amuse", "shock")
ASKING = ("where", "when", "why")


def _strict(r: Random) -> tuple[Verb, str, str, str]:
    """A verb that needs its object: verb, class of the object, the object, its question word."""
    verb, kind = pick(r, IN.strict)
    return verb, kind, thing(r, IN, kind), "who" if kind == "person" else "what"


def _which(r: Random, kind: str) -> str:
    nouns = IN.nouns[r.choice(HUMAN) if kind == "person" else kind]
    return join("which", r.choice(nouns).singular)


def wh_gap(r: Random) -> Pair:
    """What did the guest repair (*the lamp)? Did the guest repair *(the lamp)?"""
    verb, kind, what, wh = _strict(r)
    if either(r, 0.3):
        wh = _which(r, kind)
    subject, thinker = definite(r, IN), definite(r, IN, names=0.6, plural=False)
    shape = r.randrange(8)
    if shape < 2:
        frame = join(wh, "did", subject, verb.base)
        return Pair(question(frame), question(frame, what))
    if shape == 2:
        frame = join("did", subject, verb.base)
        return Pair(question(frame, what), question(frame))
    if shape == 3:
        frame = join(r.choice(ASKING), "did", subject, verb.base)
        return Pair(question(frame, what), question(frame))
    thinking = r.choice(IN.thinking)
    if shape == 4:
        frame = join(wh, "does", thinker, r.choice(("think", "believe", "claim")), "that")
        frame = join(frame, subject, verb.past)
        return Pair(question(frame), question(frame, what))
    if shape == 5:
        frame = join("does", thinker, thinking.base, "that", subject, verb.past)
        return Pair(question(frame, what), question(frame))
    if shape == 6:
        frame = join(thinker, r.choice(("knows", "remembers")), wh, subject, verb.past)
        return Pair(sentence(frame), sentence(frame, what))
    frame = join(thinker, thinking.third, "that", subject, verb.past)
    return Pair(sentence(frame, what), sentence(frame))


def inversion(r: Random) -> Pair:
    """What is the guest painting / *the guest is painting? She knows what the guest is painting."""
    plural = either(r, 0.4)
    subject = definite(r, IN, plural)
    verb, kind = pick(r, MANNER_VERBS)
    wh, rest = (
        ("which " + r.choice(IN.nouns[kind]).singular, "") if either(r, 0.4) else ("what", "")
    )
    if either(r, 0.4):
        wh, rest = r.choice(ASKING), thing(r, IN, kind)
    auxiliary, form = r.choice(
        (
            ("are" if plural else "is", verb.ing),
            ("have" if plural else "has", verb.participle),
            (r.choice(("can", "will", "should", "must")), verb.base),
            ("did", verb.base),
        )
    )
    tail = join(form, rest)
    direct, flat = join(wh, auxiliary, subject, tail), join(wh, subject, auxiliary, tail)
    if either(r):
        if auxiliary == "did" and either(r):
            flat = join(wh, "did", subject, verb.past, rest)
        return Pair(question(direct), question(flat))
    if auxiliary == "did":
        flat = join(wh, subject, verb.past, rest)
    knower = join(definite(r, IN, False, names=0.6), r.choice(("knows", "wonders", "remembers")))
    return Pair(sentence(knower, flat), sentence(knower, direct))


def island(r: Random) -> Pair:
    """What did she repair before he sneezed? *What did she sneeze before he repaired?"""
    verb, kind, what, wh = _strict(r)
    first, second = definite(r, IN), definite(r, IN)
    shape = r.randrange(6)
    if shape == 0:
        other, link = r.choice(STRICT_INTRANSITIVE), r.choice(("before", "after"))
        return Pair(
            question(wh, "did", first, verb.base, link, second, other.past),
            question(wh, "did", first, other.base, link, second, verb.past),
        )
    if shape == 1:
        # The gap may be in the main clause, not in the relative clause on its subject.
        others = [(v, k) for k in IN.strict for v in IN.strict[k] if k != kind and v != verb]
        other, other_kind = r.choice(others)
        first = definite(r, IN, names=0)
        other_what = thing(r, IN, other_kind)
        frame = join("what" if other_kind != "person" else "who", "did", first, "who", verb.past)
        return Pair(
            question(frame, what, other.base),
            question(join(wh, "did", first, "who", verb.past), other.base, other_what),
        )
    if shape == 2:
        return _complex_noun(r, verb, what, wh, first, second)
    if shape == 3:
        another = thing(r, IN, kind)
        if either(r):
            frame = join("did", first, verb.base, what, "and")
            return Pair(question(frame, another), question(wh, frame))
        second_verb = r.choice([v for v in IN.strict[kind] if v != verb] or IN.events[kind])
        frame = join(wh, "did", first, verb.base, "and", second_verb.base)
        return Pair(question(frame), question(frame, another))
    if shape == 4:
        noun, preposition = r.choice(PICTURES)
        picture = join(r.choice(("a", "the", "that")), noun, preposition)
        effect = r.choice(EFFECTS)
        return Pair(
            question("who did", picture, first, effect), question("who did", picture, effect, first)
        )
    which = r.choice(("whose", "which"))
    noun = r.choice(IN.nouns[kind]).singular
    return Pair(
        question(which, noun, "did", first, verb.base),
        question(which, "did", first, verb.base, noun),
    )


def _complex_noun(r: Random, verb: Verb, what: str, wh: str, first: str, second: str) -> Pair:
    """What did she hear (*the rumor) that he repaired?"""
    hearing, heard = r.choice((("hear", "heard"), ("believe", "believed")))
    rumor = join(r.choice(("the", "a")), r.choice(("rumor", "story", "claim")), "that")
    bad = question(wh, "did", first, hearing, rumor, second, verb.past)
    shape = r.randrange(3)
    if shape == 0:
        return Pair(question(wh, "did", first, hearing, "that", second, verb.past), bad)
    if shape == 1:
        return Pair(question("did", first, hearing, rumor, second, verb.past, what), bad)
    return Pair(question("who", heard, rumor, second, verb.past, what), bad)
