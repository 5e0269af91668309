"""The one error that a user can cause."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user asked for cannot be done; the message is one line that says what is allowed.

    The command line prints the message to stderr and exits with 2, without a traceback.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def unknown(kind: str, name: str, allowed: Iterable[str]) -> UserError:
    """An error for a name that does not exist: it lists the names that do, the nearest first."""
    names = list(allowed)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return UserError(f"unknown {kind} {name!r}{hint} (there are: {', '.join(names)})")
