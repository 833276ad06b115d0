"""Phenomena of the verb: its arguments, complements, forms, auxiliaries and tense."""

from random import Random

from potstill.data.minicola.lexicon import (
    BARE_CAUSATIVES,
    EXPLAINING,
    FUTURE_TIMES,
    GETTING,
    GIVING,
    IN,
    ING_VERBS,
    MANNER_VERBS,
    NEEDLESS,
    PAST_TIMES,
    PREPOSITIONAL,
    STATES,
    STRICT_INTRANSITIVE,
    THAT_VERBS,
    TO_CAUSATIVES,
    TO_VERBS,
    VOLUNTARY,
    VOLUNTARY_INTRANSITIVE,
    WHETHER_VERBS,
)
from potstill.data.minicola.phrases import (
    DEFINITE,
    Pair,
    dress,
    either,
    join,
    maybe,
    past_clause,
    person,
    pick,
    sentence,
    thing,
)
from potstill.data.minicola.words import Verb

# Verbs whose past is not the participle, but not "see": one can saw a ladder.
IRREGULAR = {
    kind: tuple(verb for verb in verbs if verb.past != verb.participle and verb.base != "see")
    for kind, verbs in IN.events.items()
}
SURFACES = ("table", "shelf", "floor", "bench")


def transitivity(r: Random) -> Pair:
    """The guest devoured *(the cake); the guest sneezed *the cake; she listened *(to) the king."""
    shape = r.randrange(6)
    subject = person(r, IN).text
    if shape < 2:
        verb, kind = pick(r, IN.strict)
        frame = join(subject, verb.past)
        return dress(r, IN, join(frame, thing(r, IN, kind)), frame, past=True)
    if shape == 2:
        frame = join(subject, r.choice(STRICT_INTRANSITIVE).past)
        kind = r.choice(("person", "animal", "tool", "text", "garment"))
        return dress(r, IN, frame, join(frame, thing(r, IN, kind)), past=True)
    if shape == 3:
        verb = r.choice(STRICT_INTRANSITIVE)
        place = r.choice(IN.places)
        frame = join(subject, verb.past)
        return dress(r, IN, join(frame, place), join(frame, place.split(maxsplit=1)[1]), past=True)
    if shape == 4:
        verb, preposition = r.choice(PREPOSITIONAL)
        frame, someone = join(subject, verb.past), person(r, IN).text
        return dress(r, IN, join(frame, preposition, someone), join(frame, someone), past=True)
    verb, preposition, kind = r.choice(NEEDLESS)
    frame, what = join(subject, verb.past), thing(r, IN, kind)
    return dress(r, IN, join(frame, what), join(frame, preposition, what), past=True)


def ditransitive(r: Random) -> Pair:
    """She lent the guest a lamp / *a lamp the guest; she explained the rule to him / *him it."""
    shape = r.randrange(6)
    giver, taker = person(r, IN).text, person(r, IN).text
    what = thing(r, IN, r.choice(("tool", "text", "garment")))
    frame = join(giver, r.choice(GIVING).past)
    if shape < 2:
        return dress(r, IN, join(frame, taker, what), join(frame, what, taker), past=True)
    if shape == 2:
        verb, themes = r.choice(EXPLAINING)
        frame, what = join(giver, verb.past), join(r.choice(("the", "a", "this")), r.choice(themes))
        return dress(r, IN, join(frame, what, "to", taker), join(frame, taker, what), past=True)
    if shape == 3:
        # The theme may not go unsaid: *The queen handed to the guest.
        frame = join(giver, r.choice(("handed", "showed")))
        return dress(r, IN, join(frame, what, "to", taker), join(frame, "to", taker), past=True)
    if shape == 4:
        frame = join(giver, r.choice(GETTING).past, what)
        return dress(r, IN, join(frame, "from", taker), join(frame, "to", taker), past=True)
    what = thing(r, IN, r.choice(("tool", "text")))
    place = join("on the", r.choice(SURFACES))
    frame = join(giver, r.choice(("put", "placed")), what)
    if either(r):
        return dress(r, IN, join(frame, place), frame, past=True)
    frame = join(giver, "placed")
    return dress(r, IN, join(frame, what, place), join(frame, place), past=True)


def verb_complement(r: Random) -> Pair:
    """He decided to sing / *singing; she thinks that / *whether they left; he made her *to sing."""
    subject = person(r, IN).text
    shape = r.randrange(3)
    if shape == 0:
        infinitive = either(r)
        verb = r.choice(TO_VERBS if infinitive else ING_VERBS)
        inner, rest = willing(r)
        frame = join(subject, verb.past)
        forms = join("to", inner.base, rest), join(inner.ing, rest)
        right, wrong = forms if infinitive else forms[::-1]
        return dress(r, IN, join(frame, right), join(frame, wrong))
    if shape == 1:
        that = either(r)
        verb = r.choice(THAT_VERBS if that else WHETHER_VERBS)
        frame, clause = join(subject, verb.past), past_clause(r, IN)
        right, wrong = ("that", "whether") if that else ("whether", "that")
        return Pair(sentence(frame, right, clause), sentence(frame, wrong, clause))
    bare = either(r)
    verb = r.choice(BARE_CAUSATIVES if bare else TO_CAUSATIVES)
    inner, rest = willing(r)
    frame = join(subject, verb.past, person(r, IN).text)
    forms = join(inner.base, rest), join("to", inner.base, rest)
    right, wrong = forms if bare else forms[::-1]
    return dress(r, IN, join(frame, right), join(frame, wrong))


def verb_form(r: Random) -> Pair:
    """She has written / *wrote / *write a letter; he did not see / *saw the castle."""
    plural = either(r)
    subject = person(r, IN, plural).text
    verb, kind = pick(r, IRREGULAR)
    dynamic = either(r, 0.6)
    if dynamic:
        verb, kind = pick(r, MANNER_VERBS)
    what = thing(r, IN, kind)
    have, be, do = ("have", "are", "do") if plural else ("has", "is", "does")
    irregular = verb.past != verb.participle
    past = [verb.past] if irregular else []
    options: list[tuple[str, str, list[str]]] = [
        (r.choice(("can", "will", "should", "must")), verb.base, [verb.third, verb.past, verb.ing]),
        (r.choice(("did not", f"{do} not")), verb.base, [verb.third, verb.past, verb.ing]),
        (have, verb.participle, [verb.base, verb.ing, *past]),
        (r.choice(("had", "had already")), verb.participle, [verb.base, verb.third, *past]),
    ]
    if dynamic:
        options += [
            (be, verb.ing, [verb.base, verb.third, *past]),
            (f"{have} been", verb.ing, [verb.base, verb.third]),
            (r.choice(("will be", "should be")), verb.ing, [verb.base, verb.third]),
        ]
    if irregular:
        options.append(("", verb.past, [verb.participle]))
    auxiliary, right, wrong = r.choice(options)
    good = join(subject, auxiliary, right, what)
    return dress(r, IN, good, join(subject, auxiliary, r.choice(wrong), what))


def auxiliary(r: Random) -> Pair:
    """She has been / *been has singing; he does not / *not does like it; *he does not can sing."""
    plural = either(r)
    subject = person(r, IN, plural).text
    verb, rest = _doing(r)
    have, be, do = ("have", "are", "do") if plural else ("has", "is", "does")
    modal = r.choice(("can", "will", "should", "must", "could"))
    shape = r.randrange(6)
    if shape == 0:
        first, second, form = r.choice(
            (
                (modal, "have", verb.participle),
                (modal, "be", verb.ing),
                (have, "been", verb.ing),
                ("had", "been", verb.ing),
            )
        )
        tail = join(form, rest)
        return _two(r, subject, join(first, second, tail), join(second, first, tail))
    if shape == 1:
        first, form = r.choice(
            (
                (have, verb.participle),
                (be, verb.ing),
                (modal, verb.base),
                (do, verb.base),
                ("did", verb.base),
            )
        )
        tail = join(form, rest)
        return _two(r, subject, join(first, "not", tail), join("not", first, tail))
    if shape == 2:
        state, kind = pick(r, STATES)
        form = state.base if plural else state.third
        what = thing(r, IN, kind, determiners=DEFINITE)
        return _two(r, subject, join(do, "not", state.base, what), join("not", form, what))
    if shape == 3:
        tail = join(verb.base, rest)
        return _two(r, subject, join(modal, "not", tail), join(do, "not", modal, tail))
    if shape == 4:
        tail = join(verb.ing, rest)
        return _two(r, subject, join(be, "not", tail), join(do, "not", be, tail))
    tail = join(verb.base, rest)
    return _two(r, subject, join(modal, tail), join(r.choice(("did", do, have)), modal, tail))


def _two(r: Random, subject: str, right: str, wrong: str) -> Pair:
    return dress(r, IN, join(subject, right), join(subject, wrong))


def _doing(r: Random) -> tuple[Verb, str]:
    """A verb that goes with every auxiliary, the progressive too, and what follows it."""
    if either(r, 0.3):
        return r.choice(IN.intransitive), maybe(r, 0.6, IN.places)
    verb, kind = pick(r, MANNER_VERBS)
    return verb, thing(r, IN, kind)


def willing(r: Random, intransitive: float = 0.3) -> tuple[Verb, str]:
    """Something that one can decide to do, and what follows it."""
    if either(r, intransitive):
        return r.choice(VOLUNTARY_INTRANSITIVE), maybe(r, 0.6, IN.places)
    verb, kind = pick(r, VOLUNTARY)
    return verb, thing(r, IN, kind)


def tense_time(r: Random) -> Pair:
    """She arrived yesterday / *tomorrow; he will arrive tomorrow / *yesterday."""
    plural = either(r)
    subject = person(r, IN, plural).text
    verb, rest = willing(r)
    earlier, later = r.choice(PAST_TIMES), r.choice(FUTURE_TIMES)
    shape = r.randrange(6)
    did = join(verb.past, rest)
    will = r.choice(("will", "are going to" if plural else "is going to"))
    will = join(will, verb.base, rest)
    if shape < 2:
        good, bad = (did, earlier), (did, later)
    elif shape < 4:
        good, bad = (will, later), (will, earlier)
    elif shape == 4:
        good, bad = (did, earlier), (will, earlier)
    else:
        good, bad = (will, later), (did, later)
    if either(r, 0.25):
        return Pair(sentence(good[1], subject, good[0]), sentence(bad[1], subject, bad[0]))
    return dress(r, IN, join(subject, *good), join(subject, *bad))
