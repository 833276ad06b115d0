"""The words of MiniCoLA: IN and what follows it for train and dev, OUT and OUT_* for ood dev.

Nouns and verbs stand in classes of meaning, so that what the grammar says makes sense: what is
baked is a pastry. No word of content is in both; FUNCTION_WORDS lists those that may be shared.
"""

from potstill.data.minicola.words import (
    Lexicon,
    Relation,
    nouns,
    verbs,
    verbs_by_class,
    words_by_class,
)

IN = Lexicon(
    names=words_by_class(
        {
            "m": "Peter John David Paul Henry Martin Oscar Simon Robert Thomas Daniel Walter",
            "f": "Mary Anna Emma Julia Sarah Alice Clara Helen Laura Nina Sophie Martha",
        }
    ),
    nouns={
        "person": nouns(
            "teacher doctor nurse lawyer farmer singer painter student neighbor guest "
            "child/children baker driver pilot tourist judge writer scientist engineer soldier "
            "sailor manager gardener reporter cousin musician"
        ),
        "man": nouns("man/men boy king uncle brother prince father grandfather nephew son", "m"),
        "woman": nouns(
            "woman/women girl queen aunt sister princess mother grandmother niece daughter", "f"
        ),
        "animal": nouns("dog cat horse rabbit goat parrot pony monkey camel"),
        "tool": nouns(
            "lamp clock chair basket ladder camera bicycle umbrella violin mirror blanket hammer "
            "drum kettle guitar"
        ),
        "pastry": nouns("cake pie cookie pancake muffin"),
        "produce": nouns("apple pear carrot potato/potatoes orange tomato/tomatoes"),
        "text": nouns("book letter poem novel article diary essay report"),
        "place": nouns("museum castle village church temple palace harbor cave"),
        "garment": nouns("coat hat scarf/scarves sweater jacket shirt"),
    },
    adjectives=words_by_class(
        {
            "person": "tall old young clever famous friendly rich lazy brave shy",
            "animal": "small black hungry white gentle old",
            "tool": "old new heavy small expensive beautiful cheap red",
            "pastry": "fresh delicious small sweet huge",
            "produce": "fresh ripe small delicious huge",
            "text": "long short famous strange boring",
            "place": "old small famous quiet ancient",
            "garment": "old new warm blue expensive red",
        }
    ),
    moods=("tired", "hungry", "busy", "angry", "happy", "sad", "nervous", "bored", "ill", "calm"),
    events=verbs_by_class(
        {
            "person": "help greet thank praise invite follow warn meet/met visit hug+ call "
            "see/saw/seen watch interrupt",
            "animal": "feed/fed chase brush catch/caught rescue see/saw/seen draw/drew/drawn",
            "tool": "buy/bought sell/sold repair clean steal/stole/stolen find/found carry "
            "borrow drop+ paint hide/hid/hidden break/broke/broken take/took/taken",
            "pastry": "bake slice taste eat/ate/eaten devour",
            "produce": "peel slice wash eat/ate/eaten devour",
            "text": "write/wrote/written translate publish copy finish tear/tore/torn burn",
            "place": "visit enter reach leave/left see/saw/seen photograph draw/drew/drawn",
            "garment": "wash fold mend lose/lost buy/bought borrow choose/chose/chosen iron",
        }
    ),
    strict=verbs_by_class(
        {
            "person": "greet thank praise admire ignore recognize",
            "animal": "chase rescue admire",
            "tool": "repair damage examine describe",
            "pastry": "devour",
            "produce": "devour",
            "text": "describe mention examine",
            "place": "discover describe mention",
        }
    ),
    intransitive=verbs(
        "sleep/slept laugh smile sneeze yawn wait kneel/knelt shiver blush giggle hesitate "
        "sing/sang/sung dance work complain cough whisper cry relax"
    ),
    thinking=verbs("think/thought say/said believe know/knew/known claim suspect"),
    places=(
        "in the garden",
        "at the market",
        "near the station",
        "in the yard",
        "behind the school",
        "near the river",
        "at the beach",
        "in the park",
    ),
    times=("yesterday", "last week", "last night", "on Sunday", "two days ago"),
)

# Those whom one calls "my" or "our".
RELATED = frozenset(
    noun.singular
    for noun in nouns(
        "teacher doctor lawyer neighbor cousin uncle brother nephew son aunt sister niece daughter "
        "dentist tailor barber grandson granddaughter"
    )
)
_room = nouns("cellar drawer room kitchen")
_box = nouns("box bottle jar")
_house = nouns("house cottage barn tower")
RELATIONS = (
    Relation(nouns("key")[0], "to", _room, ("rusty", "heavy", "new")),
    Relation(nouns("road")[0], "to", IN.nouns["place"], ("narrow", "long", "dusty")),
    Relation(nouns("letter")[0], "from", IN.nouns["person"], ("short", "strange", "boring")),
    Relation(nouns("story")[0], "about", IN.nouns["animal"], ("long", "famous", "strange")),
    Relation(nouns("picture")[0], "of", IN.nouns["place"], ("beautiful", "expensive", "small")),
    Relation(nouns("window")[0], "of", _house, ("dirty", "small", "open")),
    Relation(nouns("roof")[0], "of", _house, ("wet", "old", "red")),
    Relation(nouns("label")[0], "on", _box, ("yellow", "wet", "small")),
    Relation(nouns("owner")[0], "of", IN.nouns["animal"] + _house, IN.moods),
    Relation(nouns("friend")[0], "of", IN.nouns["person"] + IN.nouns["man"], IN.moods),
    Relation(nouns("sister", "f")[0], "of", IN.nouns["person"], IN.moods),
    Relation(nouns("uncle", "m")[0], "of", IN.nouns["woman"], IN.moods),
)
STATES = verbs_by_class(
    {
        "person": "know/knew/known like love hate trust admire fear envy respect",
        "animal": "own like love fear",
        "tool": "need own want like",
        "text": "understand/understood like love remember",
        "place": "love hate like remember",
        "garment": "need own like want",
    }
)
FREQUENCY = ("often", "usually", "sometimes", "always")
# What one does to others and to oneself.
SELF_VERBS = verbs("blame praise admire describe criticize injure defend surprise convince protect")
# Intransitive verbs that take no object whatever, not even a cognate one.
STRICT_INTRANSITIVE = verbs(
    "sneeze yawn arrive kneel/knelt shiver blush giggle hesitate sleep/slept smile faint"
)
PREPOSITIONAL = tuple(
    (verbs(verb)[0], preposition)
    for verb, preposition in (
        ("listen", "to"),
        ("look", "at"),
        ("wait", "for"),
        ("rely", "on"),
        ("laugh", "at"),
        ("smile", "at"),
        ("apologize", "to"),
        ("talk", "to"),
        ("complain", "about"),
    )
)
NEEDLESS = tuple(
    (verbs(verb)[0], preposition, kind)
    for verb, preposition, kind in (
        ("approach", "to", "person"),
        ("admire", "at", "animal"),
        ("describe", "about", "place"),
        ("mention", "about", "text"),
        ("thank", "to", "person"),
        ("discuss", "about", "text"),
        ("greet", "to", "person"),
        ("contact", "to", "person"),
    )
)
GIVING = verbs("give/gave/given send/sent lend/lent show/showed/shown hand offer")
EXPLAINING = tuple(
    (verbs(verb)[0], tuple(themes.split()))
    for verb, themes in (
        ("explain", "rule plan problem"),
        ("describe", "problem plan picture"),
        ("mention", "rumor problem plan"),
        ("announce", "decision plan"),
        ("confess", "crime secret"),
        ("reveal", "secret plan"),
        ("suggest", "plan solution"),
    )
)
GETTING = verbs("borrow steal/stole/stolen buy/bought")
TO_VERBS = verbs("decide hope agree pretend aim")
ING_VERBS = verbs("enjoy avoid keep/kept imagine suggest deny")
THAT_VERBS = verbs("think/thought hope believe claim")
WHETHER_VERBS = verbs("investigate inquire debate")
BARE_CAUSATIVES = verbs("make/made let+/let/let hear/heard")
TO_CAUSATIVES = verbs("force allow persuade tell/told encourage")
# Adjectives of manner, whose adverbs end in -ly.
MANNERS = ("careful", "quiet", "patient", "polite", "cheerful", "eager", "skillful", "graceful")
SPEEDS = ("slowly", "carefully", "quietly", "secretly", "eagerly", "happily")
MANNER_VERBS = verbs_by_class(
    {
        "tool": "repair clean carry paint hide/hid/hidden steal/stole/stolen",
        "pastry": "slice eat/ate/eaten",
        "produce": "peel wash slice",
        "text": "write/wrote/written translate copy burn",
        "garment": "fold wash mend iron",
        "animal": "feed/fed brush draw/drew/drawn",
    }
)
# What people do because they will, so that they can be told to.
VOLUNTARY = {
    **MANNER_VERBS,
    "person": verbs("help greet thank invite follow warn visit hug+ call interrupt"),
    "place": verbs("visit enter leave/left photograph"),
}
VOLUNTARY_INTRANSITIVE = verbs("sing/sang/sung dance work wait kneel/knelt whisper relax smile")
PARTICLES = tuple(
    (verbs(verb)[0], particle, kind)
    for verb, particle, kind in (
        ("pick", "up", "tool"),
        ("throw/threw/thrown", "away", "text"),
        ("put+/put/put", "down", "tool"),
        ("wake/woke/woken", "up", "person"),
        ("take/took/taken", "off", "garment"),
        ("write/wrote/written", "down", "text"),
    )
)
PAST_TIMES = ("yesterday", "last week", "last night", "two days ago", "last year")
FUTURE_TIMES = ("tomorrow", "next week", "tomorrow evening", "next Sunday", "next year")

OUT = Lexicon(
    names=words_by_class(
        {
            "m": "Victor Frank George Albert Edward Ronald Louis Hugo",
            "f": "Grace Ruth Diana Olivia Victoria Susan Irene Zoe",
        }
    ),
    nouns={
        "person": nouns(
            "clown chef plumber tailor cashier dentist detective janitor magician thief/thieves "
            "butcher athlete astronaut professor barber"
        ),
        "man": nouns("actor duke waiter monk gentleman/gentlemen grandson", "m"),
        "woman": nouns("actress duchess waitress nun bride granddaughter", "f"),
        "animal": nouns("mouse/mice fox spider frog lizard owl wolf/wolves goose/geese"),
        "tool": nouns("vase piano suitcase sofa statue engine telescope wardrobe trophy/trophies"),
        "food": nouns("pizza salad omelet burger pumpkin"),
    },
    adjectives=words_by_class(
        {
            "person": "strong rude wealthy generous talented ambitious elegant",
            "animal": "wild noisy fierce brown tiny",
            "tool": "fancy antique shiny green enormous",
            "food": "spicy cold greasy tasty",
        }
    ),
    moods=("jealous", "cheery", "sleepy", "thirsty", "proud", "lonely", "grumpy"),
    events=verbs_by_class(
        {
            "person": "interview arrest insult bribe tickle cheat scare defeat flatter impress "
            "hire applaud escort",
            "animal": "capture tame frighten trap+ pet+",
            "tool": "inspect polish purchase scratch decorate ship+ deliver rent move measure",
            "food": "cook swallow order reheat serve grill chop+",
        }
    ),
    strict=verbs_by_class(
        {
            "person": "arrest insult bribe tickle defeat",
            "animal": "capture tame frighten trap+ pet+",
            "tool": "inspect purchase locate lift",
            "food": "swallow reheat purchase",
        }
    ),
    intransitive=verbs(
        "snore stumble limp gamble jog+ skate wink groan scream juggle sob+ tremble meditate "
        "exercise blink shout chuckle march nod+ doze"
    ),
    thinking=verbs("assume realize notice recall"),
    places=(
        "in the attic",
        "at the carnival",
        "in the basement",
        "at the airport",
        "behind the theater",
        "in the forest",
        "at the zoo",
        "outside the hotel",
    ),
    times=("recently", "on Friday", "an hour earlier", "this afternoon"),
)

OUT_STRENGTHS = (
    ("strong", "stronger", "strongest"),
    ("rude", "ruder", "rudest"),
    ("loud", "louder", "loudest"),
    ("wealthy", "wealthier", "wealthiest"),
    ("slim", "slimmer", "slimmest"),
    ("weird", "weirder", "weirdest"),
)
OUT_QUALITIES = ("generous", "talented", "ambitious", "elegant", "popular", "modest")
OUT_MASS = ("furniture", "luggage", "jewelry", "equipment", "cutlery")
OUT_COUNT = nouns("sofa suitcase necklace candle telescope trophy/trophies lantern vase")
# Transitive verbs that no situation supplies an object for.
OUT_HANDLING = verbs_by_class(
    {
        "person": "defeat locate",
        "animal": "capture tame locate",
        "tool": "lift locate",
        "food": "reheat locate",
    }
)
OUT_TOUGH = ("easy", "difficult", "impossible", "tough")
OUT_WILLING = ("willing", "keen", "reluctant", "desperate")
OUT_RAISING = verbs("seem appear happen")
OUT_CONTROL = verbs("try attempt struggle")
OUT_LEARNING = verbs("learn guess forget+/forgot/forgotten determine")

# The closed classes and the few words both lexicons share.
_FUNCTION_WORDS = """
a about all an and anybody anyone are as at be because been being behind both but by can could did
do does each earlier every everybody for from had has have he her herself him himself how i in is it
let many me more most much my neither no nobody nor not of on one or our outside several she should
so some somebody someone that the their them themselves there these they this those three to too two
us very was we were what when where which who whom whose why will yet yourself
"""
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
