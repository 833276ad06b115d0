"""How a function reports how far it is, without knowing who shows it or how."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

# Takes the total; the context that it returns yields show(done, description).
Progress = Callable[[int], AbstractContextManager[Callable[[int, str], None]]]


@contextmanager
def no_progress(total: int) -> Iterator[Callable[[int, str], None]]:
    """Show nothing."""
    yield lambda done, description: None
