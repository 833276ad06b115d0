"""What fits into the time that `make` has, by how fast this machine is."""

from dataclasses import dataclass, replace

from potstill.recipes._speed import Rates
from potstill.recipes._student import resolve_training
from potstill.settings import PretrainSettings, TrainSettings

SAFE = 0.9  # of the time is planned for; the rest is for what is slower than it was measured
TEACHER_SHARE = 0.5  # at most, of what can be planned
TEACHER_EPOCHS, TEACHER_STEPS, MAX_TEACHER_EPOCHS = 3, 200, 10  # more epochs for few sentences
TEACHER_BATCH = 32
# Steps of the teacher, where the data has so many: after fewer it knows less than the labels alone
# teach a student.
MIN_TEACHER_STEPS = 100
MIN_STUDENT_EPOCHS = 4
FEWEST = 200  # sentences that are trained on even where the time is too short for them
PER_SENTENCE = 10  # sentences of a transfer set for each labelled one, at most
MIN_EDITED = 1000  # fewer don't pay for loading the teacher once more
MIN_SAMPLED = 5000  # fewer don't pay for tuning a language model
SAMPLING = 5.0  # times as long as labelling; with its soft targets it took 3 to 5 times
LM_EPOCH = 1.3  # times as long as learning from the labels: an epoch as a language model
LABELLING_EDITS = 1.25  # times as long as labelling: edits are made and compared, too
FASTER = 3.0  # times as fast as measured that a machine may be: it was busy then, or cold
PUNCTUAL = 0.95  # of the time that is left for the student's passes
FINISHING = 15.0  # seconds for the export, the scores and the report, apart from the teacher's


@dataclass(frozen=True)
class Sizes:
    """How many sentences there are: to train on, to choose by or score in training, to score in the
    end, and unlabelled ones of the user; and whether the student starts from pretrained weights, so
    that it need not be a language model first."""

    train: int
    scored: int
    final: int
    unlabelled: int = 0
    init: bool = True


@dataclass(frozen=True)
class Plan:
    """What is done in the time.

    Args:
        train: Labelled sentences that are trained on.
        teacher_epochs: Passes of LoRA over them; 0 without a teacher.
        student_epochs: Passes of the student over them and the transfer set.
        user, sampled, edited: Sentences of the transfer set, by kind.
        seconds: What each step is expected to take.
        student_minutes: What the student's passes may take, whatever the machine's speed; then
            there are fewer. None until they are begun.
    """

    train: int
    teacher_epochs: int
    student_epochs: int
    user: int
    sampled: int
    edited: int
    seconds: dict[str, float]
    student_minutes: float | None = None

    @property
    def transfer(self) -> int:
        return self.user + self.sampled + self.edited


def make_plan(budget: float, rates: Rates, sizes: Sizes) -> Plan:
    """Return what fits into `budget` seconds.

    First comes what can't be left out: one pass of the teacher, its logits, MIN_STUDENT_EPOCHS of
    the student. Where that is too long, fewer sentences are trained on; where these are too few for
    a teacher, there is none. Then the teacher gets more passes, then the student, and what is left
    is for a transfer set.
    """
    scoring = sizes.scored / rates.labelling  # after every epoch
    plannable = SAFE * budget - _reserve(rates, sizes) - scoring
    minimum = 1 / rates.tuning + 1 / rates.labelling + MIN_STUDENT_EPOCHS / rates.student
    used = min(sizes.train, max(FEWEST, int(max(plannable, 0.0) / minimum)))
    wanted = _wanted_epochs(used)
    epoch = used / rates.tuning + scoring
    epochs = max(1, min(wanted, int(TEACHER_SHARE * plannable / epoch)))
    worthwhile = min(MIN_TEACHER_STEPS * TEACHER_BATCH, sizes.train * _wanted_epochs(sizes.train))
    if used * epochs < worthwhile:
        return plan_without_teacher(budget, rates, sizes)
    tuning = epochs * epoch + rates.loading
    sizes = replace(sizes, train=used)
    rest = plan_student(budget - tuning / SAFE, rates, sizes, epochs)
    return replace(rest, seconds={"teacher": tuning} | rest.seconds)


def _wanted_epochs(sentences: int) -> int:
    wanted = round(TEACHER_STEPS * TEACHER_BATCH / sentences)
    return max(TEACHER_EPOCHS, min(MAX_TEACHER_EPOCHS, wanted))


def plan_without_teacher(budget: float, rates: Rates, sizes: Sizes) -> Plan:
    """Return what fits into `budget` seconds where the student learns from the labels alone."""
    left = SAFE * budget - FINISHING
    used = min(sizes.train, max(FEWEST, int(left * rates.student_alone / MIN_STUDENT_EPOCHS)))
    epochs = student_epochs(left, rates.student_alone, used, init=sizes.init)
    training = seconds_of_student(epochs, rates.student_alone, used, init=sizes.init)
    return Plan(used, 0, epochs, 0, 0, 0, {"student": training, "finish": FINISHING})


def plan_student(budget: float, rates: Rates, sizes: Sizes, teacher_epochs: int) -> Plan:
    """Return what fits into the `budget` seconds that are left when the teacher is tuned."""
    left = SAFE * budget - _reserve(rates, sizes) - sizes.train / rates.labelling
    user, sampled, edited = _set_that_fits(left, rates, sizes)
    transfer = user + sampled + edited
    made = _seconds_of_set(user, sampled, edited, rates, sizes.train)
    total = sizes.train + transfer
    how = {"transfer_set": transfer > 0, "init": sizes.init}
    epochs = student_epochs(left - made, rates.student, total, **how)
    training = seconds_of_student(epochs, rates.student, total, **how)
    seconds = {
        "transfer": made,
        "student": sizes.train / rates.labelling + rates.loading + training,
        "finish": FINISHING + rates.loading + sizes.final / rates.labelling,
    }
    if not transfer:
        del seconds["transfer"]
    return Plan(sizes.train, teacher_epochs, epochs, user, sampled, edited, seconds)


def plan_passes(plan: Plan, left: float, rate: float, *, transfer_set: bool, init: bool) -> Plan:
    """Return the plan with the passes of the student that begin now.

    There are as many as a much faster machine would have time for; the time decides how many of
    them are left out. None can be added.

    Args:
        plan: What was planned before.
        left: Seconds for the student's training.
        rate: Sentences a second that it learns from.
        transfer_set: Whether some of them are a transfer set's.
        init: As in `Sizes`.
    """
    sentences = plan.train + plan.transfer
    how = {"transfer_set": transfer_set, "init": init}
    epochs = student_epochs(left, FASTER * rate, sentences, **how)
    passes = PUNCTUAL * left - seconds_of_student(0, rate, sentences, **how)
    return replace(plan, student_epochs=epochs, student_minutes=round(max(passes, 1.0) / 60, 3))


def student_epochs(
    seconds: float, rate: float, sentences: int, *, transfer_set: bool = False, init: bool = True
) -> int:
    """Return how many passes over `sentences`, of which it learns from `rate` a second, fit into
    the time, at most those of `distil`."""
    seconds -= seconds_of_student(0, rate, sentences, transfer_set=transfer_set, init=init)
    affordable = int(max(seconds, 0.0) * rate / sentences)
    usual, _ = _usual_epochs(sentences, transfer_set, init)
    return min(usual, max(MIN_STUDENT_EPOCHS, affordable))


def seconds_of_student(
    epochs: int, rate: float, sentences: int, *, transfer_set: bool = False, init: bool = True
) -> float:
    """Return how long so many passes take, and those before them as a language model, if any."""
    _, pretrain = _usual_epochs(sentences, transfer_set, init)
    return (epochs + LM_EPOCH * pretrain) * sentences / rate


def _usual_epochs(sentences: int, transfer_set: bool, init: bool) -> tuple[int, int]:
    """Return the epochs that `distil` or `rnn` trains for, and those as a language model before."""
    settings, pretraining = resolve_training(
        TrainSettings(),
        PretrainSettings(),
        sentences=sentences,
        transfer_set=transfer_set,
        init=init,
    )
    return settings.epochs, pretraining.pretrain_epochs or 0


def _reserve(rates: Rates, sizes: Sizes) -> float:
    """Return the seconds of what is done in any case."""
    return FINISHING + 2 * rates.loading + sizes.final / rates.labelling


def _set_that_fits(left: float, rates: Rates, sizes: Sizes) -> tuple[int, int, int]:
    """Return how many sentences of the user, sampled and edited ones make the largest transfer set
    that is made and learnt from in `left` seconds."""
    low, high = 0.0, max(left, 0.0)  # seconds for making it
    while high - low > 1:
        middle = (low + high) / 2
        contents = _contents(middle, rates, sizes)
        total = sizes.train + sum(contents)
        how = {"transfer_set": any(contents), "init": sizes.init}
        usual, _ = _usual_epochs(total, **how)
        learnt = seconds_of_student(usual, rates.student, total, **how)
        made = _seconds_of_set(*contents, rates, sizes.train)
        low, high = (middle, high) if made + learnt <= left else (low, middle)
    return _contents(low, rates, sizes)


def _contents(seconds: float, rates: Rates, sizes: Sizes) -> tuple[int, int, int]:
    """Return what a transfer set that is made in so many seconds has: first the user's sentences;
    half of the rest of the time is for sampling, where that pays, and what is left for edits."""
    seconds = max(seconds - rates.loading, 0.0)
    user = min(sizes.unlabelled, int(seconds * rates.labelling))
    seconds -= user / rates.labelling
    most, tuning = PER_SENTENCE * sizes.train, sizes.train / rates.tuning
    sampled = min(most // 2, int((seconds / 2 - tuning) * rates.labelling / SAMPLING))
    if sampled < MIN_SAMPLED:
        sampled = 0
    else:
        seconds -= tuning + sampled * SAMPLING / rates.labelling
    edited = min(most - sampled, int(seconds * rates.labelling / LABELLING_EDITS))
    return user, sampled, edited if edited >= MIN_EDITED or user + sampled else 0


def _seconds_of_set(user: int, sampled: int, edited: int, rates: Rates, train: int) -> float:
    """Return how long it takes to make a transfer set; 0 for none."""
    if not user + sampled + edited:
        return 0.0
    seconds = user + SAMPLING * sampled + LABELLING_EDITS * edited
    tuning = train / rates.tuning if sampled else 0.0
    return rates.loading + tuning + seconds / rates.labelling
