"""Phenomena of form: agreement, determiners, reflexives, case."""

from random import Random

from potstill.data.minicola.arguments import willing
from potstill.data.minicola.lexicon import (
    FREQUENCY,
    GETTING,
    IN,
    MANNER_VERBS,
    PREPOSITIONAL,
    RELATIONS,
    SELF_VERBS,
    STATES,
    TO_CAUSATIVES,
)
from potstill.data.minicola.phrases import (
    DEFINITE,
    UNOWNED,
    Pair,
    Phrase,
    action,
    definite,
    dress,
    either,
    human_noun,
    join,
    maybe,
    noun_phrase,
    person,
    pick,
    sentence,
    thing,
)

REFLEXIVES = {"m": "himself", "f": "herself", "p": "themselves", "we": "ourselves", "I": "myself"}
CASES = {"he": "him", "she": "her", "they": "them", "we": "us", "I": "me"}
NEARNESS = ("near", "next to", "behind", "in front of")


def subject_verb(r: Random) -> Pair:
    """The nurses often sing / *sings."""
    plural = either(r)
    if either(r, 0.2):
        subject = r.choice(("they", "we") if plural else ("he", "she"))
    else:
        subject = person(r, IN, plural).text
    return _agreeing(r, subject, plural)


def agreement_attractor(r: Random) -> Pair:
    """The key to the cellars is / *are rusty."""
    plural = either(r)
    other = not plural if either(r, 0.75) else plural
    if either(r, 0.35):
        near = person(r, IN, other, names=0.1).text
        head = noun_phrase(r, human_noun(r, IN), plural, determiners=DEFINITE).text
        return _agreeing(r, join(head, r.choice(NEARNESS), near), plural)
    relation = r.choice(RELATIONS)
    head = noun_phrase(r, relation.noun, plural, determiners=DEFINITE).text
    complement = noun_phrase(r, r.choice(relation.complements), other, (), UNOWNED).text
    subject = join(head, relation.preposition, complement)
    if relation.adjectives == IN.moods:
        return _agreeing(r, subject, plural)
    one, many = r.choice((("is", "are"), ("was", "were"), ("looks", "look")))
    predicate = join(maybe(r, 0.2, ("very", "rather")), r.choice(relation.adjectives))
    if either(r, 0.2):
        one, many, predicate = "belongs", "belong", "to " + definite(r, IN)
    right, wrong = (many, one) if plural else (one, many)
    return dress(r, IN, join(subject, right, predicate), join(subject, wrong, predicate))


def agreement_relative(r: Random) -> Pair:
    """The boy who the nurses admire is / *are tired; the boy who likes / *like the nurses left."""
    plural = either(r)
    other = not plural if either(r, 0.75) else plural
    head = noun_phrase(r, human_noun(r, IN), plural, determiners=DEFINITE).text
    near = person(r, IN, other, names=0.1).text
    who = r.choice(("who", "that"))
    verb, _ = pick(r, STATES, ("person",))
    right, wrong = (verb.base, verb.third) if plural else (verb.third, verb.base)
    shape = r.random()
    if shape < 0.35:
        relative = join(who, near, verb.base if other else verb.third)
        return _agreeing(r, join(head, relative), plural)
    if shape < 0.65:
        return _agreeing(r, join(head, who, right, near), plural)
    verb, rest = action(r, IN)
    tail = join(near, verb.past, rest)
    return dress(r, IN, join(head, who, right, tail), join(head, who, wrong, tail), past=True)


def coordination_agreement(r: Random) -> Pair:
    """The king and the queen are / *is tired; the king near the queen is / *are tired."""
    plural = either(r)
    link = "and" if plural else r.choice(NEARNESS)
    if plural and either(r, 0.2):
        first, second = (r.choice(IN.names[gender]) for gender in "mf")
    else:
        first, second = (_someone(r) for _ in range(2))
    if either(r, 0.2):
        plural, first = True, person(r, IN, True, determiners=DEFINITE).text
    return _agreeing(r, join(first, link, second), plural)


def _someone(r: Random) -> str:
    the = {False: ("the", "the", "this")}
    return noun_phrase(r, human_noun(r, IN), False, IN.adjectives["person"], the).text


def finite(r: Random) -> tuple[str, str]:
    """A verb phrase that shows agreement, for a singular and for a plural human subject."""
    shape = r.choice(("mood", "mood", "place", "state", "state", "habit", "perfect", "progress"))
    if shape in ("mood", "place"):
        predicate = r.choice(IN.moods if shape == "mood" else IN.places)
        one, many = ("is", "are") if either(r, 0.7) else ("was", "were")
        return join(one, predicate), join(many, predicate)
    if shape == "perfect":
        verb, rest = action(r, IN)
        return join("has", verb.participle, rest), join("have", verb.participle, rest)
    if shape == "state":
        verb, kind = pick(r, STATES)
        rest = thing(r, IN, kind, determiners=DEFINITE)
        if either(r, 0.35):
            return join("does not", verb.base, rest), join("do not", verb.base, rest)
        return join(verb.third, rest), join(verb.base, rest)
    verb, place = r.choice(IN.intransitive), maybe(r, 0.5, IN.places)
    if shape == "progress":
        if either(r):
            verb, kind = pick(r, MANNER_VERBS)
            place = thing(r, IN, kind)
        return join("is", verb.ing, place), join("are", verb.ing, place)
    often = maybe(r, 0.7, FREQUENCY)
    return join(often, verb.third, place), join(often, verb.base, place)


def _agreeing(r: Random, subject: str, plural: bool) -> Pair:
    one, many = finite(r)
    right, wrong = (many, one) if plural else (one, many)
    return dress(r, IN, join(subject, right), join(subject, wrong))


def determiner_noun(r: Random) -> Pair:
    """These books / *these book; every child / *every children."""
    plural = either(r)
    if plural:
        determiner = r.choice(("these", "those", "many", "several", "two", "few", "three"))
    else:
        determiner = r.choice(("this", "that", "every", "each", "one", "a", "another"))
    if either(r, 0.4):
        noun, kind = human_noun(r, IN), "person"
    else:
        kind = r.choice(("animal", "tool", "pastry", "text", "place", "garment"))
        noun = r.choice(IN.nouns[kind])
    adjective = maybe(r, 0.35, IN.adjectives[kind])
    right, wrong = (noun.plural, noun.singular) if plural else (noun.singular, noun.plural)
    right, wrong = join(determiner, adjective, right), join(determiner, adjective, wrong)
    if kind == "person" and either(r, 0.6):
        verb, rest = action(r, IN)
        tail = join(verb.past, rest, maybe(r, 0.5, IN.times))
        return Pair(sentence(right, tail), sentence(wrong, tail))
    verb = r.choice(IN.events[kind])
    subject = person(r, IN).text
    good, bad = join(subject, verb.past, right), join(subject, verb.past, wrong)
    return dress(r, IN, good, bad, past=True)


def reflexive(r: Random) -> Pair:
    """The queen near the boys praised herself / *themselves."""
    verb = r.choice(SELF_VERBS)
    who = r.choice(tuple(REFLEXIVES))
    right = REFLEXIVES[who]
    wrong = REFLEXIVES[r.choice(_WRONG[who])]
    if who in ("we", "I"):
        head = Phrase(who, who == "we")
    else:
        gender = None if who == "p" else who
        head = person(r, IN, who == "p", gender, DEFINITE, names=0.3)
    subject = head.text
    shape = r.random()
    if shape < 0.3 and who in ("m", "f", "p"):
        # Someone else inside the subject, whom the wrong reflexive would fit.
        subject, wrong = _distracted(r, who)
    elif shape < 0.45 and who in ("m", "f", "p"):
        outer = "f" if who == "m" else "m"
        wrong = REFLEXIVES[outer]
        frame = join(person(r, IN, False, outer, names=0.6).text, r.choice(("said", "thought")))
        tail = join(frame, "that", subject, "had", verb.participle)
        return Pair(sentence(tail, right), sentence(tail, wrong))
    elif shape < 0.55:
        other = definite(r, IN, names=0.1)
        if who not in ("m", "f", "p"):
            return dress(r, IN, join(subject, verb.past, right), join(right, verb.past, other))
        return dress(r, IN, join(subject, verb.past, right), join(right, verb.past, subject))
    elif shape < 0.7 and who in ("m", "f", "p"):
        outer = "f" if who == "m" else "m"
        frame = join(person(r, IN, False, outer, names=0.6).text, r.choice(TO_CAUSATIVES).past)
        frame = join(frame, subject, "to", verb.base)
        return Pair(sentence(frame, right), sentence(frame, REFLEXIVES[outer]))
    good, bad = join(subject, verb.past, right), join(subject, verb.past, wrong)
    return dress(r, IN, good, bad, past=True)


# No singular with "themselves", which some speakers say of one person, and no "we ... myself".
_WRONG = {
    "m": ("f", "I"),
    "f": ("m", "we"),
    "p": ("m", "f", "we"),
    "we": ("p", "m", "f"),
    "I": ("p", "p", "m", "f"),
}


def _distracted(r: Random, who: str) -> tuple[str, str]:
    """A subject of this kind with another person in it, and the reflexive that fits that one."""
    other = r.choice([kind for kind in ("m", "f", "p") if kind != who])
    gender = None if other == "p" else other
    inner = person(r, IN, other == "p", gender, DEFINITE, names=0.2).text
    head = human_noun(r, IN, None if who == "p" else who)
    noun = head.plural if who == "p" else head.singular
    if either(r, 0.6):
        subject = join("the", noun, r.choice(NEARNESS), inner)
    else:
        verb, _ = pick(r, IN.events, ("person",))
        subject = join("the", noun, r.choice(("who", "that")), verb.past, inner)
    return subject, REFLEXIVES[other]


def pronoun_case(r: Random) -> Pair:
    """She / *her greeted the guest; the guest greeted her / *she."""
    nominative = r.choice(tuple(CASES))
    accusative = CASES[nominative]
    verb, rest = action(r, IN, 0.2)
    someone = person(r, IN).text
    shape = r.randrange(8)
    if shape < 3:
        tail = join(verb.past, rest)
        return dress(r, IN, join(nominative, tail), join(accusative, tail), past=True)
    if shape == 3:
        verb, _ = pick(r, IN.events, ("person",))
        frame = join(someone, verb.past)
        return dress(r, IN, join(frame, accusative), join(frame, nominative), past=True)
    if shape == 4:
        verb, preposition = r.choice(PREPOSITIONAL)
        frame = join(someone, verb.past, preposition)
        return dress(r, IN, join(frame, accusative), join(frame, nominative), past=True)
    if shape == 5:
        verb, rest = willing(r)
        frame = join(someone, r.choice(TO_CAUSATIVES).past)
        tail = join("to", verb.base, rest)
        return dress(r, IN, join(frame, accusative, tail), join(frame, nominative, tail))
    if shape == 6:
        verb, kind = pick(r, IN.events, ("tool", "text", "garment"))
        what = thing(r, IN, kind, False, DEFINITE, 0)
        tail = join(verb.past, "was", r.choice(IN.adjectives[kind]))
        good, bad = join(what, "that", nominative, tail), join(what, "that", accusative, tail)
        return dress(r, IN, good, bad)
    getting = r.choice(GETTING)
    frame = join(someone, getting.past, thing(r, IN, "tool"), "from")
    return dress(r, IN, join(frame, accusative), join(frame, nominative), past=True)
