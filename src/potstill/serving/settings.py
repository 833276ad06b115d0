"""The settings of the service; nothing heavy is imported here."""

from dataclasses import dataclass

from potstill.errors import check
from potstill.settings import OptionalText, Switch


@dataclass(frozen=True)
class ServeSettings:
    """The service, and its limits."""

    host: str = "127.0.0.1"
    """Address to listen at; 0.0.0.0 is every address of this machine."""
    port: int = 8000
    """Port to listen at; 0 takes one that is free."""
    token: OptionalText = None
    """Token that requests must send, as Authorization: Bearer TOKEN. Default: $POTSTILL_TOKEN."""
    access_log: Switch = False
    """Write a line for every request to standard error."""
    max_batch: int = 64
    """Texts that go through the model together; 1 turns batching off."""
    max_queue: int = 4096
    """Texts that may wait; further ones are refused with status 429."""
    max_texts: int = 1000
    """Texts of one request; more are refused with status 413."""
    max_characters: int = 10_000
    """Characters of a text; longer ones are refused with status 422."""
    max_body: int = 1_000_000
    """Bytes of a request; larger ones are refused with status 413."""
    timeout: float = 10.0
    """Seconds for a request to arrive, and for its answer."""

    def __post_init__(self) -> None:
        check("port", self.port, 0 <= self.port < 2**16, "0 to 65535")
        check("timeout", self.timeout, self.timeout > 0, "more than 0")
        for field in ("max_batch", "max_queue", "max_texts", "max_characters", "max_body"):
            check(field, getattr(self, field), getattr(self, field) >= 1, "1 or more")
