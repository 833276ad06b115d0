"""The settings of every command, in groups; the command line makes its flags from them.

They import nothing heavy, so that `--help` answers at once.
"""

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from tyro.conf import FlagCreatePairsOff, arg

from potstill.errors import UsageError, check, check_choice
from potstill.goals import parse_goal

# Their help says what happens without them, so that "(default: None)" is left out.
OptionalText = Annotated[str | None, arg(help_behavior_hint="")]
# One name, or several; the command line gives a tuple.
OptionalColumns = Annotated[
    str | tuple[str, ...] | None,
    arg(
        metavar="COLUMN [COLUMN ...]",
        help="Column (or JSON key) of the text, except in CoLA's format; the texts of several "
        'columns are joined with " ||| ". Default: sentence or text.',
        help_behavior_hint="",
    ),
]
OptionalInt = Annotated[int | None, arg(help_behavior_hint="")]
OptionalFloat = Annotated[float | None, arg(help_behavior_hint="")]
ClassWeight = Literal["none", "balanced"]
Cell = Literal["rnn", "gru", "lstm"]
LMTargets = Literal["soft", "hard"]
Loss = Literal["kl", "mse"]
Precision = Literal["auto", "bf16", "fp32"]
Switch = Annotated[FlagCreatePairsOff[bool], arg(help_behavior_hint="")]
# Settings of TrainSettings that say how a run goes on, not what comes of it.
RUN_CONTROL = ("save_minutes", "fresh", "resume")


@dataclass(frozen=True)
class DataSettings:
    """Labelled sentences."""

    data: str = "auto"
    """A file, a folder, cola, minicola, or auto: CoLA in data/ or downloadable, else MiniCoLA."""
    text_column: OptionalColumns = None
    label_column: OptionalText = None
    """Column (or JSON key) of the label. Default: label."""
    group_column: OptionalText = None
    """Column of what rows that belong together have in common; a split never separates them."""
    holdout: float = 0.05
    """Fraction of the training sentences held out to choose the epoch; 0 takes the last epoch."""
    max_length: int = 128
    """Maximum number of tokens of a sentence; longer ones are truncated."""

    def __post_init__(self) -> None:
        check("holdout", self.holdout, 0 <= self.holdout < 1, "0 to below 1")
        check("max_length", self.max_length, self.max_length >= 1, "1 or more")


@dataclass(frozen=True)
class TrainSettings:
    """Optimisation: AdamW with a linear warm-up and a linear decay to zero."""

    epochs: OptionalInt = None
    """Passes over the data. Default: LoRA 3; pretrain 5; a student 20, from 20,000 sentences on
    fewer, from 100,000 on 4."""
    batch_size: OptionalInt = None
    """Sentences per step, over all processes. Default: LoRA 32; pretrain 1024; a student 32, from
    20,000 sentences on 64, from 200,000 on and on a GPU 1024."""
    lr: OptionalFloat = None
    """Peak learning rate. Default: LoRA 6e-4; pretrain 0.014; a student 2e-3, from 20,000 sentences
    on 1e-3 for a batch of 64, and with the square root of the batch size."""
    weight_decay: float = 0.01
    """Weight decay of AdamW, applied to matrices only."""
    warmup: float = 0.06
    """Fraction of the steps over which the learning rate rises."""
    clip: float = 1.0
    """Maximum norm of the gradient."""
    precision: Precision = "auto"
    """Arithmetic of a decoder and of GRU training; auto: bf16 if the hardware speeds it up."""
    minutes: OptionalFloat = None
    """Minutes for the epochs. Where there is no time for all, fewer are trained, and the learning
    rate falls to 0 by then. Default: no limit."""
    save_minutes: float = 5.0
    """Minutes between two savings of the state; it is saved at every epoch's end, too."""
    fresh: Switch = False
    """Start anew where an unfinished run of the same settings would be continued."""
    resume: Switch = False
    """Continue an unfinished run, or fail if there is none; without it, a new one starts then."""

    def __post_init__(self) -> None:
        check("epochs", self.epochs, self.epochs is None or self.epochs >= 1, "1 or more")
        valid = self.batch_size is None or self.batch_size >= 1
        check("batch_size", self.batch_size, valid, "1 or more")
        valid = self.lr is None or 0 < self.lr < 1
        check("lr", self.lr, valid, "more than 0 and less than 1")
        check("weight_decay", self.weight_decay, self.weight_decay >= 0, "0 or more")
        check("warmup", self.warmup, 0 <= self.warmup <= 1, "0 to 1")
        check_choice("precision", self.precision, Precision)
        check("clip", self.clip, self.clip > 0, "more than 0")
        valid = self.minutes is None or self.minutes > 0
        check("minutes", self.minutes, valid, "more than 0")
        check("save_minutes", self.save_minutes, self.save_minutes >= 0, "0 or more")
        if self.fresh and self.resume:
            raise UsageError("`fresh` starts anew and `resume` continues; give one of them.")

    def with_defaults(self, *, epochs: int, batch_size: int, lr: float) -> "ResolvedTrainSettings":
        """Return the settings with these values where they are left open."""
        chosen = {
            "epochs": self.epochs or epochs,
            "batch_size": self.batch_size or batch_size,
            "lr": self.lr or lr,
        }
        return ResolvedTrainSettings(**(asdict(self) | chosen))


@dataclass(frozen=True)
class ResolvedTrainSettings(TrainSettings):
    """`TrainSettings` of which nothing is left open."""

    epochs: int = 1
    batch_size: int = 32
    lr: float = 1e-3


@dataclass(frozen=True)
class DecisionSettings:
    """Class weights, calibrated probabilities and thresholds."""

    class_weight: ClassWeight = "none"
    """Weight of the sentences in the loss; balanced: inversely to the frequency of their class."""
    calibrate: bool = True
    """After training, fit the temperature of the probabilities on the held-out sentences."""
    goal: str = "none"
    """Goal of thresholds: none, mcc, accuracy, macro_f1, precision@R[:CLASS], recall@P[:CLASS]."""

    def __post_init__(self) -> None:
        check_choice("class_weight", self.class_weight, ClassWeight)
        parse_goal(self.goal)


@dataclass(frozen=True)
class LoRASettings:
    """Low-rank adaptation (Hu et al. 2021)."""

    LoRA_rank: int = 4
    """Rank of the update of each linear layer."""
    LoRA_alpha: OptionalFloat = None
    """Scale of the updates: they are multiplied by alpha / rank. Default: twice the rank."""
    LoRA_dropout: float = 0.0
    """Dropout on the input of each update."""

    def __post_init__(self) -> None:
        check("LoRA_rank", self.LoRA_rank, self.LoRA_rank >= 1, "1 or more")
        valid = self.LoRA_alpha is None or self.LoRA_alpha > 0
        check("LoRA_alpha", self.LoRA_alpha, valid, "more than 0")
        check("LoRA_dropout", self.LoRA_dropout, 0 <= self.LoRA_dropout < 1, "0 to below 1")

    @property
    def alpha(self) -> float:
        return 2.0 * self.LoRA_rank if self.LoRA_alpha is None else self.LoRA_alpha


@dataclass(frozen=True)
class NetworkSettings:
    """The network of a DistilRNN."""

    cell: Cell = "gru"
    """Type of the recurrent layers."""
    hidden_size: int = 256
    """Hidden units of each direction."""
    embedding_size: int = 128
    """Size of the token embeddings."""
    layers: int = 2
    """Number of recurrent layers."""
    bidirectional: bool = True
    """Read the sentence in both directions."""
    dropout: float = 0.2
    """Dropout on embeddings, between layers and before the linear layer."""

    def __post_init__(self) -> None:
        check_choice("cell", self.cell, Cell)
        for field in ("hidden_size", "embedding_size", "layers"):
            check(field, getattr(self, field), getattr(self, field) >= 1, "1 or more")
        check("dropout", self.dropout, 0 <= self.dropout < 1, "0 to below 1")


@dataclass(frozen=True)
class StudentSettings(NetworkSettings):
    """DistilRNN: an embedding, recurrent layers and a linear layer."""

    init: OptionalText = None
    """Initial weights: base (DistilRNN-base), cola (the student of CoLA that comes with the
    package), none (random), or the folder of a base or student.
    Default: base; for a network of another shape none."""
    vocab_size: int = 8000
    """Maximum vocabulary of the student's own BPE tokenizer; an init brings its own instead."""
    match_prevalence: bool = True
    """Shift class biases so that predicted and true frequencies on train agree, if unweighted."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check("vocab_size", self.vocab_size, self.vocab_size > 257, "more than 257")

    def model_kwargs(self) -> dict[str, Any]:
        """Return the settings that describe the network, for `StudentConfig`."""
        others = ("init", "match_prevalence")
        return {key: value for key, value in asdict(self).items() if key not in others}


@dataclass(frozen=True)
class PretrainSettings:
    """Before it learns to classify, the student learns to predict the next token of its text."""

    pretrain_epochs: OptionalInt = None
    """Passes over the text; 0 skips it. Default: from initial weights 0; else 6, with a transfer
    set 3."""
    pretrain_lr: float = 8e-3
    """Peak learning rate of pretraining."""
    pretrain_targets: LMTargets = "soft"
    """Targets in sampled text: the decoder's top-32 probabilities (soft) or the tokens (hard)."""

    def __post_init__(self) -> None:
        check_choice("pretrain_targets", self.pretrain_targets, LMTargets)
        valid = self.pretrain_epochs is None or self.pretrain_epochs >= 0
        check("pretrain_epochs", self.pretrain_epochs, valid, "0 or more")
        valid = 0 < self.pretrain_lr < 1
        check("pretrain_lr", self.pretrain_lr, valid, "more than 0 and less than 1")


@dataclass(frozen=True)
class DistilSettings:
    """Knowledge distillation (Hinton, Vinyals and Dean 2015)."""

    loss: Loss = "kl"
    """Loss against the teacher: KL divergence, or mean squared error of the logits."""
    temperature: float = 1.0
    """Temperature of the KL loss; above 1 softens both distributions."""
    alpha: float = 0.5
    """Weight of the teacher's logits in the loss; the labels have weight 1 - alpha."""
    word_loss_weight: float = 4.0
    """Weight of the per-word loss relative to the sentence-level loss; 0 turns it off."""

    def __post_init__(self) -> None:
        check("temperature", self.temperature, self.temperature > 0, "more than 0")
        check("alpha", self.alpha, 0 <= self.alpha <= 1, "0 to 1")
        valid = self.word_loss_weight >= 0
        check_choice("loss", self.loss, Loss)
        check("word_loss_weight", self.word_loss_weight, valid, "0 or more")


@dataclass(frozen=True)
class GeneralTextSettings:
    """The text that DistilRNN-base is pretrained on."""

    tokens: int = 28_000_000
    """Tokens to sample from the base decoder; a million takes 0.4 GB on disk and in memory."""
    vocab_size: int = 8192
    """Vocabulary of the base: the first tokens of the decoder's."""

    def __post_init__(self) -> None:
        check("tokens", self.tokens, self.tokens >= 1, "1 or more")
        check("vocab_size", self.vocab_size, self.vocab_size > 257, "more than 257")


@dataclass(frozen=True)
class SamplingSettings:
    """Sampling of the text."""

    max_new_tokens: int = 50
    """Maximum number of tokens to add."""
    temperature: float = 0.8
    """Sampling temperature; below 1 is safer, above 1 more varied."""
    top_k: int = 50
    """Sample from the k most probable tokens; 0 for all."""
    top_p: float = 0.95
    """Sample from the most probable tokens that make up this probability; 1 for all."""
    greedy: Switch = False
    """Always take the most probable token."""

    def __post_init__(self) -> None:
        check("max_new_tokens", self.max_new_tokens, self.max_new_tokens >= 1, "1 or more")
        expected = "more than 0; for no randomness use `greedy`"
        check("temperature", self.temperature, self.temperature > 0, expected)
        check("top_k", self.top_k, self.top_k >= 0, "0 or more")
        check("top_p", self.top_p, 0 < self.top_p <= 1, "more than 0 and up to 1")
