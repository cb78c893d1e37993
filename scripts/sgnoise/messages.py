"""Words for what is wrong. Nothing here can change a result."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the known name closest to ``name``, else a full stop."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else "."


def unknown_name(what: str, name: object, valid: Iterable[str]) -> ValueError:
    """The error for a name that is not among the ``valid`` ones; it points to the nearest."""
    valid = sorted(valid)
    near = difflib.get_close_matches(str(name), valid, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return ValueError(f"unknown {what} {name!r}{hint} (valid: {', '.join(valid)})")


def first_line(error: Exception) -> str:
    """The first line of what an error says, or its kind if it says nothing; for the log alone.

    >>> first_line(ValueError("no such layer\\nat line 3"))
    'no such layer'
    """
    return (str(error).strip() or type(error).__name__).partition("\n")[0]
