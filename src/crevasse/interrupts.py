"""Ctrl-C where nothing is torn: what must not stop in the middle is finished first.

A signal raises KeyboardInterrupt between any two instructions. In the middle of an update the rule's state would be a
step ahead of the weights, and a checkpoint written then would be neither. Inside `caught`, a signal that comes while
something is `held` waits for its end; a second one does not wait.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


class Torn(KeyboardInterrupt):
    """A second signal that did not wait: what was held is in pieces and must not be kept."""


class _State:
    """What is held, and what waits, in this process."""

    def __init__(self) -> None:
        self.caught = False
        self.held = 0
        self.waiting = False

    def hear(self, *_: Any) -> None:
        """A signal."""
        if self.held and not self.waiting:
            self.waiting = True
            return
        self.waiting = False
        raise Torn if self.held else KeyboardInterrupt


_state = _State()
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def caught() -> Iterator[None]:
    """SIGINT and SIGTERM are KeyboardInterrupts that wait for what is held. Only the main thread hears signals."""
    if _state.caught or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {s: signal.getsignal(s) for s in _SIGNALS}
    # What is ignored, as in the background of a shell, stays so, and a SIGTERM that kills at once stays so too.
    mine = [s for s, handler in before.items() if handler not in (None, signal.SIG_IGN, signal.SIG_DFL)]
    _state.caught, _state.held, _state.waiting = True, 0, False
    try:
        for s in mine:
            signal.signal(s, _state.hear)
        yield
    finally:
        for s in mine:
            signal.signal(s, before[s])
        _state.caught = False


@contextlib.contextmanager
def held() -> Iterator[None]:
    """What is inside ends before an interrupt is raised, which then is raised here."""
    _state.held += 1
    try:
        yield
    finally:
        _state.held -= 1
    if _state.waiting and not _state.held:
        _state.waiting = False
        raise KeyboardInterrupt
