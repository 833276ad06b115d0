"""Phenomena of the clause: negative polarity, word order, coordination."""

from random import Random

from potstill.data.minicola.arguments import willing
from potstill.data.minicola.lexicon import (
    FREQUENCY,
    IN,
    ING_VERBS,
    MANNER_VERBS,
    MANNERS,
    PARTICLES,
    SPEEDS,
    TO_VERBS,
    VOLUNTARY,
)
from potstill.data.minicola.phrases import (
    DEFINITE,
    Pair,
    action,
    definite,
    dress,
    either,
    human_noun,
    join,
    person,
    pick,
    question,
    sentence,
    thing,
)
from potstill.data.minicola.words import verbs

# Verbs that "at all" goes with; not "laugh" and "smile": one laughs at all of them.
DEGREES = verbs("sleep/slept cry sing/sang/sung work cough complain hesitate dance")


def negative_polarity(r: Random) -> Pair:
    """No guest has ever sung / *the guest has ever sung."""
    verb, rest = action(r, IN, determiners=DEFINITE)
    subject = definite(r, IN, plural=False)
    noun, other = human_noun(r, IN).singular, human_noun(r, IN).singular
    did = join("has", verb.participle, rest)
    ever = join("has ever", verb.participle, rest)
    shape = r.choices(range(8), (1, 3, 1, 2, 3, 3, 3, 3))[0]
    if shape == 0:
        some = r.choice(("some", "this", "every", "the", "that"))
        return dress(r, IN, join("no", noun, ever), join(some, noun, ever))
    if shape == 1:
        # The negation has to stand above: in the subject's own determiner, not inside its clause.
        meeting, _ = pick(r, IN.events, ("person",))
        link = r.choice(("that", "who"))
        return Pair(
            sentence("no", noun, link, "the", other, meeting.past, ever),
            sentence("the", noun, link, "no", other, meeting.past, ever),
        )
    if shape == 2:
        return Pair(question("has", subject, ever.removeprefix("has ")), sentence(subject, ever))
    if shape == 3:
        return Pair(
            sentence("never", "has", subject, did.removeprefix("has ")),
            sentence("never", subject, did),
        )
    if shape == 4:
        return _any(r, noun)
    if shape == 5:
        return _at_all(r)
    return _yet(r, noun, subject) if shape == 6 else _anything(r, noun, subject)


def _any(r: Random, noun: str) -> Pair:
    verb, kind = pick(r, IN.events, ("tool", "pastry", "produce", "text", "animal", "garment"))
    what = join("any", r.choice(IN.nouns[kind]).plural)
    subject = person(r, IN).text
    if either(r, 0.25):
        good, bad = join(subject, "did not", verb.base, what), join(subject, verb.past, what)
        return dress(r, IN, good, bad, past=True)
    lazy = r.choice(DEGREES)
    return Pair(
        sentence("the", noun, "who", lazy.past, "did not", verb.base, what),
        sentence("the", noun, "who did not", lazy.base, verb.past, what),
    )


def _at_all(r: Random) -> Pair:
    first, second = r.sample(DEGREES, 2)
    subject, other = person(r, IN).text, person(r, IN).text
    if either(r, 0.25):
        good, bad = join(subject, "did not", first.base), join(subject, first.past)
        return dress(r, IN, join(good, "at all"), join(bad, "at all"), past=True)
    link = r.choice(("and", "but"))
    return Pair(
        sentence(subject, "did not", first.base, "at all,", link, other, second.past),
        sentence(subject, first.past, "at all,", link, other, "did not", second.base),
    )


def _yet(r: Random, noun: str, subject: str) -> Pair:
    verb, rest = action(r, IN, 0.1, DEFINITE)
    tail = join(verb.participle, rest, "yet")
    if either(r, 0.25):
        return dress(r, IN, join(subject, "has not", tail), join(subject, "has", tail))
    lazy = r.choice(DEGREES).participle
    return Pair(
        sentence("the", noun, "who has", lazy, "has not", tail),
        sentence("the", noun, "who has not", lazy, "has", tail),
    )


def _anything(r: Random, noun: str, subject: str) -> Pair:
    verb = r.choice(verbs("mention explain say/said show/showed/shown"))
    to = join("to", definite(r, IN))
    shape = r.choices(range(3), (1, 1, 4))[0]
    if shape == 0:
        someone = r.choice(("somebody", "everybody", "someone"))
        tail = join(verb.past, "anything", to)
        return dress(r, IN, join("nobody", tail), join(someone, tail), past=True)
    if shape == 1:
        good = join(subject, "never", verb.past, "anything", to)
        once = r.choice(("once", "secretly"))
        return dress(r, IN, good, join(subject, once, verb.past, "anything", to))
    seeing, _ = pick(r, IN.events, ("person",))
    good = join(subject, "did not", seeing.base, r.choice(("anybody", "anyone")))
    bad = join(r.choice(("anybody", "anyone")), "did not", seeing.base, subject)
    return dress(r, IN, good, bad, past=True)


def word_order(r: Random) -> Pair:
    """The old clock / *clock old; she picked it up / *up it; two days ago / *ago two days."""
    shape = r.randrange(11)
    verb, kind = pick(r, MANNER_VERBS)
    subject, what = person(r, IN).text, thing(r, IN, kind)
    done = join(verb.past, what)
    plural = either(r, 0.3)
    noun = human_noun(r, IN)
    head = noun.plural if plural else noun.singular
    adjective = r.choice(IN.adjectives["person"])
    the = r.choice(DEFINITE[plural])
    if shape == 0:
        good, bad = join(the, adjective, head, done), join(the, head, adjective, done)
    elif shape == 1:
        good, bad = join(the, adjective, head, done), join(adjective, the, head, done)
    elif shape == 2:
        speed = r.choice(SPEEDS)
        it = r.choice(("it", "them"))
        good, bad = join(subject, speed, verb.past, it), join(subject, verb.past, speed, it)
    elif shape == 3:
        phrasal, particle, kind = r.choice(PARTICLES)
        it = r.choice(("him", "her", "them") if kind == "person" else ("it", "them"))
        frame = join(subject, phrasal.past)
        good, bad = join(frame, it, particle), join(frame, particle, it)
    elif shape == 4:
        place = r.choice([place for place in IN.places if place.startswith(("in", "at"))])
        swapped = join(*place.split()[1:], place.split()[0])
        good, bad = join(subject, done, place), join(subject, done, swapped)
    elif shape == 5:
        subject = r.choice(IN.names[r.choice("mf")])
        good, bad = join(subject, done), join(subject, what, verb.past)
    elif shape == 6:
        habit, often = r.choice(VOLUNTARY["person"]).third, r.choice(FREQUENCY)
        someone, what = person(r, IN, False).text, definite(r, IN)
        good, bad = join(someone, often, habit, what), join(someone, habit, often, what)
    elif shape == 7:
        someone, adjective = join("the", noun.singular, "was"), r.choice(("old", "clever", "brave"))
        good, bad = join(someone, adjective, "enough"), join(someone, "enough", adjective)
        why = join("to", verb.base, what)
        good, bad = join(good, why), join(bad, why)
    elif shape == 8:
        number, time = r.choice(("two", "three", "four")), r.choice(("days", "weeks", "years"))
        frame = join(subject, done)
        good, bad = join(frame, number, time, "ago"), join(frame, "ago", number, time)
    elif shape == 9:
        number = r.choice(("two", "three", "four", "other"))
        good, bad = join("the", number, noun.plural, done), join(number, "the", noun.plural, done)
    else:
        tail = join(adjective, noun.singular, done)
        good, bad = join("a very", tail), join("very a", tail)
    return dress(r, IN, good, bad)


def coordination(r: Random) -> Pair:
    """Slowly and politely / *polite; both a pie and / *or a cake; he wants to sing and dance."""
    subject = person(r, IN).text
    shape = r.randrange(7)
    if shape < 2:
        one, two = r.sample(MANNERS, 2)
        noun = human_noun(r, IN)
        if shape == 0:
            verb, kind = pick(r, MANNER_VERBS)
            rest = thing(r, IN, kind)
            frame = join(subject, verb.past, rest, one + "ly", "and")
            return dress(r, IN, join(frame, two + "ly"), join(frame, two))
        verb, rest = action(r, IN)
        tail = join(noun.singular, verb.past, rest)
        frame = join(r.choice(("the", "a", "this")), one, "and")
        return dress(r, IN, join(frame, two, tail), join(frame, two + "ly", tail), past=True)
    if shape in (2, 3):
        return _coordinated_verbs(r, finite=shape == 3)
    verb, kind = pick(r, IN.events)
    first, second = (thing(r, IN, kind, False) for _ in range(2))
    if shape == 4:
        frame = join(subject, verb.past)
        good = join(frame, first, "and", second)
        bad = r.choice((join(frame, "and", first, second), join(frame, first, second, "and")))
        return dress(r, IN, good, bad)
    both, right, wrong = r.choice(
        (
            ("both", "and", "or"),
            ("both", "and", "nor"),
            ("either", "or", "nor"),
            ("either", "or", "and"),
            ("neither", "nor", "and"),
        )
    )
    frame = join(subject, verb.past, both, first)
    return dress(r, IN, join(frame, right, second), join(frame, wrong, second), past=True)


def _coordinated_verbs(r: Random, finite: bool) -> Pair:
    """He sneezed and sang / *singing; he wants to eat and paint / *painting the drum."""
    # A singular: "the boys sneezed and sing" could be a past and a present.
    # The second has an object: in "enjoyed singing and dance", "dance" could be a noun.
    subject = person(r, IN, False).text
    if finite:
        (first, rest), (second, rest2) = action(r, IN), action(r, IN, 0)
        frame = join(subject, first.past, rest, "and")
        wrong = r.choice((second.ing, second.base))
        return dress(r, IN, join(frame, second.past, rest2), join(frame, wrong, rest2))
    (first, rest), (second, rest2) = willing(r), willing(r, 0)
    forms = [join(second.base, rest2), join(second.ing, rest2)]
    if either(r):
        frame = join(subject, r.choice(TO_VERBS).past, "to", first.base, rest, "and")
        right, wrong = forms
    else:
        frame = join(subject, r.choice(ING_VERBS).past, first.ing, rest, "and")
        wrong, right = forms
    return dress(r, IN, join(frame, right), join(frame, wrong))
