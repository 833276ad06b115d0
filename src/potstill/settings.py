"""What a user can set, group by group; the command line's flags are made from these.

Kept apart from the rooms that use them so that `--help` imports nothing heavy.
"""

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from tyro.conf import FlagCreatePairsOff, arg

from potstill.errors import UsageError

# Flags that say themselves what happens without them; "(default: None)" would add nothing.
OptionalText = Annotated[str | None, arg(help_behavior_hint="")]
OptionalInt = Annotated[int | None, arg(help_behavior_hint="")]
OptionalFloat = Annotated[float | None, arg(help_behavior_hint="")]
Switch = Annotated[FlagCreatePairsOff[bool], arg(help_behavior_hint="")]


def check(field: str, value: object, valid: bool, expected: str) -> None:
    """Raise a `UsageError` that says what `field` takes, unless its value is `valid`."""
    if not valid:
        raise UsageError(f"`{field}` {value} is out of range: it takes {expected}.")


@dataclass(frozen=True)
class DataSettings:
    """Sentences and labels."""

    data: str = "auto"
    """A file, a folder, cola, minicola, or auto: CoLA in data/ or downloadable, else MiniCoLA."""
    text_column: OptionalText = None
    """Column (or JSON key) of the text, for files other than CoLA's. Default: sentence or text."""
    label_column: OptionalText = None
    """Column (or JSON key) of the label. Default: label."""
    holdout: float = 0.05
    """Share of train set aside to choose the epoch by; with 0 the last epoch is taken."""
    max_length: int = 128
    """Sentences are cut at this many tokens."""

    def __post_init__(self) -> None:
        check("holdout", self.holdout, 0 <= self.holdout < 1, "0 to below 1")
        check("max_length", self.max_length, self.max_length >= 1, "1 or more")


@dataclass(frozen=True)
class TrainSettings:
    """Optimisation: AdamW, linear warm-up, then linear decay to zero."""

    epochs: OptionalInt = None
    """Passes over the training sentences. Default: the best known for the command and the data."""
    batch_size: int = 32
    """Sentences a step, over all processes."""
    lr: float = 1e-3
    """Peak learning rate."""
    weight_decay: float = 0.01
    """AdamW's, on matrices only."""
    warmup: float = 0.06
    """Share of the steps over which the learning rate rises."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Products of the decoder and of a GRU in training; auto: bf16 where hardware speeds it up."""
    resume: Switch = False
    """Go on after the last finished epoch of an interrupted run."""

    def __post_init__(self) -> None:
        check("epochs", self.epochs, self.epochs is None or self.epochs >= 1, "1 or more")
        check("batch_size", self.batch_size, self.batch_size >= 1, "1 or more")
        check("lr", self.lr, 0 < self.lr < 1, "more than 0 and less than 1")
        check("weight_decay", self.weight_decay, self.weight_decay >= 0, "0 or more")
        check("warmup", self.warmup, 0 <= self.warmup <= 1, "0 to 1")
        check("clip", self.clip, self.clip > 0, "more than 0")


@dataclass(frozen=True)
class LoRASettings:
    """Low-rank adaptation (Hu et al. 2021)."""

    LoRA_rank: int = 4
    """Rank of the update of each linear layer."""
    LoRA_alpha: OptionalFloat = None
    """Scaling numerator: updates are multiplied by alpha / rank. Default: twice the rank."""
    LoRA_dropout: float = 0.0
    """Dropout on the input of each update."""

    def __post_init__(self) -> None:
        check("LoRA_rank", self.LoRA_rank, self.LoRA_rank >= 1, "1 or more")
        fits = self.LoRA_alpha is None or self.LoRA_alpha > 0
        check("LoRA_alpha", self.LoRA_alpha, fits, "more than 0")
        check("LoRA_dropout", self.LoRA_dropout, 0 <= self.LoRA_dropout < 1, "0 to below 1")

    @property
    def alpha(self) -> float:
        return 2.0 * self.LoRA_rank if self.LoRA_alpha is None else self.LoRA_alpha


@dataclass(frozen=True)
class StudentSettings:
    """DistilRNN: Embedding, recurrent layers, Linear."""

    cell: Literal["rnn", "gru", "lstm"] = "gru"
    """Kind of recurrent layer."""
    hidden_size: int = 256
    """Width of the state, of each direction."""
    embedding_size: int = 128
    """Width of the token embeddings."""
    layers: int = 2
    """Recurrent layers."""
    bidirectional: bool = True
    """Read the sentence from both ends."""
    dropout: float = 0.2
    """Dropout on embeddings, between layers and before the classes are scored."""
    vocab_size: int = 8000
    """Tokens of the student's own byte-level BPE, at most."""
    match_prevalence: bool = True
    """In the end, shift the classes' biases so that it calls as many training sentences each class
    as are; else it answers the class that it holds likeliest, the rare ones less often."""

    def __post_init__(self) -> None:
        for flag in ("hidden_size", "embedding_size", "layers"):
            check(flag, getattr(self, flag), getattr(self, flag) >= 1, "1 or more")
        check("dropout", self.dropout, 0 <= self.dropout < 1, "0 to below 1")
        check("vocab_size", self.vocab_size, self.vocab_size > 257, "more than 257")

    def of_network(self) -> dict[str, Any]:
        """What of it describes the network (`student.StudentConfig`)."""
        return {key: value for key, value in asdict(self).items() if key != "match_prevalence"}


@dataclass(frozen=True)
class PretrainSettings:
    """The student as a language model first."""

    pretrain_epochs: OptionalInt = None
    """Passes over the text, labelled or not, on which the student first learns to predict the next
    token; 0 for none. Default: 6, with a transfer set 3."""
    pretrain_lr: float = 8e-3
    """Peak learning rate meanwhile."""
    pretrain_targets: Literal["chances", "tokens"] = "chances"
    """What it learns of sampled sentences: what their decoder held likely after each token, or the
    tokens drawn alone."""

    def __post_init__(self) -> None:
        fits = self.pretrain_epochs is None or self.pretrain_epochs >= 0
        check("pretrain_epochs", self.pretrain_epochs, fits, "0 or more")
        fits = 0 < self.pretrain_lr < 1
        check("pretrain_lr", self.pretrain_lr, fits, "more than 0 and less than 1")


@dataclass(frozen=True)
class DistilSettings:
    """Knowledge distillation (Hinton, Vinyals and Dean 2015)."""

    loss: Literal["kl", "mse"] = "kl"
    """What pulls the student to the teacher: KL at a temperature, or the logits' squared error."""
    temperature: float = 1.0
    """Above 1 softens both distributions of the KL loss."""
    alpha: float = 0.5
    """Weight of the teacher; 1 − alpha is the weight of the labels."""
    word_weight: float = 4.0
    """Weight of what the teacher makes of a sentence after each word, beside that of the whole;
    0 for none."""

    def __post_init__(self) -> None:
        check("word_weight", self.word_weight, self.word_weight >= 0, "0 or more")
        check("temperature", self.temperature, self.temperature > 0, "more than 0")
        check("alpha", self.alpha, 0 <= self.alpha <= 1, "0 to 1")


@dataclass(frozen=True)
class TransferSettings:
    """What the set is made of."""

    sampled: int = 50_000
    """Sentences sampled from the base decoder, tuned to the task's training text."""
    edited: int = 50_000
    """Sentences one or two edits away from training sentences, sampled ones and your own."""
    temperature: float = 1.0
    """Of sampling; below 1 plays safe, above 1 takes risks."""
    lm_epochs: int = 1
    """Passes over the training text when the base decoder is tuned to it."""

    def __post_init__(self) -> None:
        check("sampled", self.sampled, self.sampled >= 0, "0 or more")
        check("edited", self.edited, self.edited >= 0, "0 or more")
        check("temperature", self.temperature, self.temperature > 0, "more than 0")
        check("lm_epochs", self.lm_epochs, self.lm_epochs >= 1, "1 or more")
