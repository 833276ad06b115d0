"""The settings of a transfer set; nothing heavy is imported here."""

from dataclasses import dataclass

from potstill.errors import check


@dataclass(frozen=True)
class TransferSettings:
    """Contents of the set."""

    sampled: int = 50_000
    """Sentences to sample from the base decoder, which is first tuned to the training text."""
    edited: int = 50_000
    """Sentences to make by one or two edits of a training sentence, a sampled one or your own."""
    temperature: float = 1.0
    """Sampling temperature; below 1 is safer, above 1 more varied."""
    sampler_epochs: int = 1
    """Passes over the training text when tuning the base decoder for sampling."""
    soft_targets: bool = True
    """Keep the decoder's most probable next tokens of sampled sentences: 1 kB each. Only a student
    that is pretrained on the set's text learns from them, as one is that starts from random
    weights."""
    save_minutes: float = 5.0
    """Minutes between two savings of the state; it is saved with every finished file, too."""

    def __post_init__(self) -> None:
        check("save_minutes", self.save_minutes, self.save_minutes >= 0, "0 or more")
        check("sampled", self.sampled, self.sampled >= 0, "0 or more")
        check("edited", self.edited, self.edited >= 0, "0 or more")
        check("temperature", self.temperature, self.temperature > 0, "more than 0")
        check("sampler_epochs", self.sampler_epochs, self.sampler_epochs >= 1, "1 or more")
