"""Phenomena of the out-of-domain file: commands, tags, ellipsis, wh-islands."""

from random import Random

from potstill.data.minicola.lexicon import OUT, OUT_LEARNING
from potstill.data.minicola.phrases import (
    DEFINITE,
    Pair,
    definite,
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
from potstill.data.minicola.words import Verb

NEGATED = {
    "did": "didn't",
    "does": "doesn't",
    "do": "don't",
    "is": "isn't",
    "are": "aren't",
    "was": "wasn't",
    "were": "weren't",
    "has": "hasn't",
    "have": "haven't",
    "can": "can't",
}


def imperative(r: Random) -> Pair:
    """Please polish / *polishes the piano; let us / *we order a pizza; introduce yourself."""
    verb, kind = pick(r, OUT.events, ("person", "tool", "food"))
    what = thing(r, OUT, kind, determiners=DEFINITE)
    mood = r.choice(("rude", "generous", "jealous", "grumpy", "proud", "modest"))
    please = maybe(r, 0.5, ("please",))
    shape = r.randrange(7)
    if shape == 0:
        return _two(join(please, verb.base, what), join(please, verb.third, what))
    if shape == 1:
        wrong = r.choice(("do not " + verb.third, "do not " + verb.ing, "not " + verb.base))
        return _two(join(please, "do not", verb.base, what), join(please, wrong, what))
    if shape == 2:
        us, we = r.choice((("us", "we"), ("him", "he"), ("her", "she"), ("them", "they")))
        return _two(join("let", us, verb.base, what), join("let", we, verb.base, what))
    if shape == 3:
        frame = join(please, "do not")
        return _two(join(frame, "be", mood), join(frame, r.choice(("are", "is")), mood))
    if shape == 4:
        # The third person is well where it is no imperative.
        busy, kind = pick(r, OUT.events, ("tool", "food"))
        noun = human_noun(r, OUT).singular
        tail = join("the", noun, "who", busy.third, thing(r, OUT, kind, True))
        call = r.choice(OUT.events["person"])
        return _two(join(please, call.base, tail), join(please, call.third, tail))
    gender = r.choice("mf")
    self_ = "himself" if gender == "m" else "herself"
    to = join("to", person(r, OUT, determiners=DEFINITE).text)
    if shape == 5:
        frame = join(please, "introduce")
        return _two(join(frame, "yourself", to), join(frame, self_, to))
    noun = human_noun(r, OUT, gender).singular
    frame = join("let the", noun, "introduce")
    return _two(join(frame, self_, to), join(frame, "yourself", to))


def _two(good: str, bad: str) -> Pair:
    return Pair(sentence(good), sentence(bad))


def _doing(r: Random) -> tuple[Verb, str]:
    if either(r, 0.4):
        return r.choice(OUT.intransitive), maybe(r, 0.5, OUT.places)
    verb, kind = pick(r, OUT.events)
    return verb, thing(r, OUT, kind)


def tag_question(r: Random) -> Pair:
    """The duchess snored, didn't she / *wasn't she / *didn't he?"""
    gender = r.choice(("m", "f", "p"))
    plural = gender == "p"
    subject = definite(r, OUT, True) if plural else person(r, OUT, False, gender, DEFINITE).text
    he = {"m": "he", "f": "she", "p": "they"}[gender]
    verb, rest = _doing(r)
    statements = {
        "did": join(verb.past, rest),
        "do" if plural else "does": join(verb.base if plural else verb.third, rest),
        "are" if plural else "is": join("are" if plural else "is", r.choice(OUT.moods)),
        "were" if plural else "was": join("were" if plural else "was", r.choice(OUT.moods)),
        "have" if plural else "has": join("have" if plural else "has", verb.participle, rest),
        "can": join("can", verb.base, rest),
    }
    auxiliary = r.choice(list(statements))
    frame = join(subject, statements[auxiliary]) + ","
    right = join(NEGATED[auxiliary], he)
    if either(r):
        wrong = join(NEGATED[r.choice([a for a in statements if a != auxiliary])], he)
    else:
        # Never "they" for one person, which some speakers say.
        other = r.choice([pronoun for pronoun in ("he", "she") if pronoun != he])
        wrong = join(NEGATED[auxiliary], other)
    return Pair(question(frame, right), question(frame, wrong))


def ellipsis(r: Random) -> Pair:
    """The chef snored, and the clown did / *was too; and so did / *neither did the clown."""
    first, second = person(r, OUT, False), person(r, OUT, False)
    verb, rest = _doing(r)
    # An auxiliary that could stand for the other's phrase is no violation: he slept and she will
    # too. "Be" and the rest can't.
    doing = {
        "did": join(verb.past, rest),
        "has": join("has", verb.participle, rest),
        "can": join("can", verb.base, rest),
        "will": join("will", verb.base, rest),
    }
    being = {be: join(be, r.choice(OUT.moods)) for be in ("is", "was")}
    right, wrong = (doing, being) if either(r) else (being, doing)
    auxiliary, statement = r.choice(list(right.items()))
    other = r.choice([word for word in wrong if word != "will"])
    frame = join(first.text, statement) + ", and"
    shape = r.randrange(5)
    if shape < 2:
        return _two(
            join(frame, second.text, auxiliary, "too"), join(frame, second.text, other, "too")
        )
    if shape == 2:
        return _two(
            join(frame, "so", auxiliary, second.text), join(frame, "so", other, second.text)
        )
    tail = join(auxiliary, second.text)
    if shape == 3:
        if auxiliary in being:
            predicate = r.choice(OUT.moods)
        else:
            predicate = join(verb.participle if auxiliary == "has" else verb.base, rest)
        frame = join(first.text, auxiliary, "not", predicate) + ", and"
        return _two(join(frame, "neither", tail), join(frame, "so", tail))
    return _two(join(frame, "so", tail), join(frame, "neither", tail))


def wh_island(r: Random) -> Pair:
    """Who guessed what the clown purchased? *What did the chef guess who purchased?"""
    verb, kind = pick(r, OUT.strict, ("animal", "tool", "food"))
    noun = r.choice(OUT.nouns[kind]).singular
    wh = r.choice(("what", join("which", noun)))
    learn = r.choice(OUT_LEARNING)
    solver, other = definite(r, OUT), definite(r, OUT)
    frame = join("did", solver, learn.base)
    bad = question(wh, frame, "who", verb.past)
    shape = r.randrange(8)
    if shape < 5:
        # Two question words are well where the first one stays in its own clause.
        return Pair(question(frame, "who", verb.past, wh), bad)
    if shape == 5:
        return Pair(question("who", learn.past, wh, other, verb.past), bad)
    if shape == 6:
        frame = join("did", solver, "guess that")
        return Pair(question(wh, frame, other, verb.past), bad)
    return Pair(question(frame, "who", verb.past, thing(r, OUT, kind, determiners=DEFINITE)), bad)
