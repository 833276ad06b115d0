"""SIGINT (Ctrl-C) and SIGTERM while a run trains: it finishes its step, saves its state and ends.

A second signal ends it at once.
"""

import logging
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)

logger = logging.getLogger(__name__)


class Interruption:
    """Notes a signal, in place of the handlers that are there, while its context lasts.

    A signal without a handler in Python, SIGTERM of a program that doesn't ask for it, is left as
    it is. In threads other than the first, where Python allows no handlers, nothing is changed.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                handler = signal.getsignal(number)
                if callable(handler):
                    self._handlers[number] = handler
                    signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if self.signal is not None and kind is None:
            self.end()  # it came after the last step

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            self._handlers[number](number, frame)
            return
        self.signal = number
        logger.info("ends after this step; a second signal ends it at once")

    def end(self) -> None:
        """Do what the signal does without this context: raise KeyboardInterrupt, as a rule.

        Raises:
            KeyboardInterrupt: In any case; where another process got the signal, too.
        """
        if self.signal is not None:
            self._handlers[self.signal](self.signal, None)
        raise KeyboardInterrupt
