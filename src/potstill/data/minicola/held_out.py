"""Phenomena of the out-of-domain file: passive, there, comparison, quantity, raising."""

from random import Random

from potstill.data.minicola.lexicon import (
    OUT,
    OUT_CONTROL,
    OUT_COUNT,
    OUT_HANDLING,
    OUT_MASS,
    OUT_QUALITIES,
    OUT_RAISING,
    OUT_STRENGTHS,
    OUT_TOUGH,
    OUT_WILLING,
)
from potstill.data.minicola.phrases import (
    Pair,
    definite,
    dress,
    either,
    human_noun,
    join,
    maybe,
    person,
    pick,
    question,
    sentence,
    thing,
)

# Verbs with one object, as one can be served a pizza and hired a clown, and of things only what
# they don't do by themselves.
ONE_OBJECT = {
    "person": tuple(verb for verb in OUT.events["person"] if verb.base != "hire"),
    "animal": OUT.events["animal"],
    "tool": tuple(
        verb
        for verb in OUT.events["tool"]
        if verb.base in ("inspect", "polish", "scratch", "decorate", "measure")
    ),
}


def passive(r: Random) -> Pair:
    """The piano was polished / *polishing by the clown; it has been / *being polished."""
    verb, kind = pick(r, ONE_OBJECT)
    patient = person(r, OUT) if kind == "person" else None
    plural = patient.plural if patient else either(r, 0.35)
    what = patient.text if patient else thing(r, OUT, kind, plural)
    agent = person(r, OUT)
    by = join("by", agent.text)
    was, has = ("were", "have") if plural else ("was", "has")
    done = join(verb.participle, maybe(r, 0.6, (by,)))
    shape = r.randrange(6)
    if shape == 0 and kind != "tool":
        good, bad = join(what, was, verb.participle, by), join(what, was, verb.ing, by)
    elif shape == 1:
        be = "were" if agent.plural else "was"
        frame = join(agent.text, be)
        good, bad = join(frame, verb.ing, what), join(frame, verb.participle, what)
    elif shape == 2:
        good, bad = join(what, has, "been", done), join(what, has, "being", done)
    elif shape == 3:
        good, bad = join(what, was, "being", done), join(what, was, "been", done)
    elif shape == 4:
        good = join(what, was, verb.participle, by)
        wrong = r.choice((join(verb.participle, agent.text), join(by, verb.participle)))
        bad = join(what, was, wrong)
    else:
        # An intransitive verb has no passive.
        who = person(r, OUT)
        frame = join(who.text, "were" if who.plural else "was")
        victim = r.choice(OUT.events["person"]).participle
        crying = r.choice(OUT.intransitive).participle
        good, bad = join(frame, victim, by), join(frame, crying, by)
    return dress(r, OUT, good, bad)


def there_insertion(r: Random) -> Pair:
    """There were three mice / *most mice in the attic; there is / *are a piano in the hotel."""
    kind = r.choice(("animal", "tool", "person"))
    noun = human_noun(r, OUT) if kind == "person" else r.choice(OUT.nouns[kind])
    place = r.choice(OUT.places)
    shape = r.choices(range(6), (2, 3, 4, 2, 2, 4))[0]
    if shape == 0:
        strong = r.choice(
            (("every", noun.singular), ("each", noun.singular), ("most", noun.plural))
        )
        was = "were" if strong[0] == "most" else "was"
        subject = join(*strong)
        good, bad = join(subject, was, place), join("there", was, subject, place)
    elif shape == 1:
        weak = r.choice((("a", noun.singular), ("one", noun.singular), ("three", noun.plural)))
        was = "were" if weak[1] == noun.plural else "was"
        every = r.choice(("most", "all")) if was == "were" else r.choice(("every", "each"))
        frame = join("there", was)
        good, bad = join(frame, *weak, place), join(frame, every, weak[1], place)
    elif shape == 2:
        plural = either(r)
        subject = join(r.choice(("three", "several", "many")), noun.plural)
        if not plural:
            subject = join(r.choice(("a", "one")), noun.singular)
        forms = r.choice((("is", "are"), ("has been", "have been")))
        right, wrong = forms[::-1] if plural else forms
        good, bad = join("there", right, subject, place), join("there", wrong, subject, place)
    elif shape == 3:
        verb, kind = pick(r, OUT.events)
        someone = join(r.choice(("a", "one")), human_noun(r, OUT).singular)
        tail = join(thing(r, OUT, kind), place)
        good = join(someone, verb.past, tail)
        bad = join("there", verb.past, someone, tail)
    else:
        tail = join(r.choice(("a", "one")), noun.singular, place)
        stood = "remained" if kind == "tool" else r.choice(("stood", "remained"))
        good, bad = join("there", stood, tail), join(stood, tail)
        if shape == 4:
            bad = join("there", stood, r.choice(("every", "each")), noun.singular, place)
    return dress(r, OUT, good, bad)


def comparative(r: Random) -> Pair:
    """Stronger than / *as; as strong / *stronger as; the strongest / *stronger of all."""
    subject = person(r, OUT)
    other = definite(r, OUT)
    frame = join(subject.text, "are" if subject.plural else "is")
    plain, more, most = r.choice(OUT_STRENGTHS)
    shape = r.randrange(6)
    if shape < 2 and either(r):
        plain = r.choice(OUT_QUALITIES)
        more, most = "more " + plain, "most " + plain
    if shape == 0:
        wrong = r.choice((join(more, "as"), join(plain, "than")))
        good, bad = join(frame, more, "than", other), join(frame, wrong, other)
    elif shape == 1:
        good = join(frame, "as", plain, "as", other)
        bad = join(frame, "as", r.choice((join(more, "as"), join(plain, "than"))), other)
    elif shape == 2:
        good, bad = join(frame, more, "than", other), join(frame, "more", more, "than", other)
    elif shape == 3:
        tail = join(more, "than", other)
        good, bad = join(frame, "much", tail), join(frame, "very", tail)
    elif shape == 4:
        good, bad = join(frame, "very", plain), join(frame, "much", plain)
    else:
        noun, place = human_noun(r, OUT), r.choice(OUT.places)
        name = r.choice(OUT.names[noun.gender or r.choice("mf")])
        good = join(name, "is the", most, noun.singular, place)
        bad = join(name, "is", r.choice(("", "the most")), most, noun.singular, place)
    return dress(r, OUT, good, bad)


def mass_count(r: Random) -> Pair:
    """Too much furniture / *sofas; how many sofas / *furniture; every sofa / *jewelry."""
    mass, count = r.choice(OUT_MASS), r.choice(OUT_COUNT)
    subject = definite(r, OUT)
    verb = r.choice([v for v in OUT.events["tool"] if v.base != "decorate"])
    shape = r.randrange(6)
    right, wrong = r.choice(((mass, count.plural), (count.plural, mass)))
    much = "much" if right == mass else "many"
    if shape == 0:
        frame = join("how", much)
        tail = join("did", subject, verb.base)
        return Pair(question(frame, right, tail), question(frame, wrong, tail))
    if shape < 3:
        frame = join(subject, verb.past, r.choice(("too", "so")), much)
        return dress(r, OUT, join(frame, right), join(frame, wrong), past=True)
    if shape == 3:
        number = r.choice(("three", "several", "two"))
        frame = join(subject, verb.past, number)
        return dress(r, OUT, join(frame, count.plural), join(frame, mass), past=True)
    if shape == 4:
        frame = join(subject, verb.past, r.choice(("every", "a", "one")))
        return dress(r, OUT, join(frame, count.singular), join(frame, mass), past=True)
    # Without a determiner it has to be a mass noun.
    frame = join(subject, verb.past)
    return dress(r, OUT, join(frame, mass), join(frame, count.singular), past=True)


def tough_movement(r: Random) -> Pair:
    """The piano was easy to lift (*it); the clown was keen to lift *(it)."""
    verb, kind = pick(r, OUT_HANDLING)
    what = thing(r, OUT, kind, False)
    other = thing(r, OUT, kind)
    lifter = person(r, OUT)
    was = "were" if lifter.plural else "was"
    tough, willing = r.choice(OUT_TOUGH), r.choice(OUT_WILLING)
    shape = r.randrange(4)
    if shape < 2:
        frame = join(what, "was", tough, "to", verb.base)
        if either(r, 0.4):
            frame = join(what, "was", tough, "for", definite(r, OUT), "to", verb.base)
        return dress(r, OUT, frame, join(frame, other))
    if shape == 2:
        frame = join(lifter.text, was, willing, "to", verb.base)
        return dress(r, OUT, join(frame, other), frame)
    tail = join("for", lifter.text, "to", verb.base, other)
    return dress(r, OUT, join("it was", tough, tail), join("it was", willing, tail))


def raising(r: Random) -> Pair:
    """There seemed / *tried to be a mouse in the attic; it / *the clown seems that she snores."""
    raise_, control = r.choice(OUT_RAISING), r.choice(OUT_CONTROL)
    subject = person(r, OUT)
    state = join("is" if not subject.plural else "are", r.choice(OUT.moods))
    that = join("that", subject.text, state)
    someone = definite(r, OUT, False)
    willing = r.choice(("willing", "keen", "reluctant"))
    likely = r.choice(("likely", "certain", "bound"))
    thing_there = join("a", r.choice((*OUT.nouns["animal"], *OUT.nouns["tool"])).singular)
    place = r.choice(OUT.places)
    shape = r.randrange(5)
    if shape == 0:
        tail = join("to be", thing_there, place)
        return dress(r, OUT, join("there", raise_.past, tail), join("there", control.past, tail))
    if shape == 1:
        tail = join("to be", thing_there, place)
        return dress(r, OUT, join("there is", likely, tail), join("there is", willing, tail))
    if shape == 2:
        verb = r.choice(OUT_RAISING[:2]).third
        return Pair(sentence("it", verb, that), sentence(someone, verb, that))
    if shape == 3:
        verb = r.choice(OUT.thinking).third
        wrong = r.choice(OUT_RAISING[:2]).third
        return Pair(sentence(someone, verb, that), sentence(someone, wrong, that))
    likely = r.choice(("likely", "possible"))
    return Pair(sentence("it is", likely, that), sentence("it is", willing, that))
