"""What a person sees of a computation: its log, and how far it is. No result depends on it."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

logger = logging.getLogger("sgnoise")

_LINE_SECONDS = 5.0


def track(items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """Yield ``items`` and show how far they are: a bar on a terminal or in a notebook, log lines.

    In a job there is no bar: standard error is its log, and the terminal shows how far the run is.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    shown = sys.stderr.isatty() or "ipykernel" in sys.modules
    bar = tqdm(total=total, desc=description, leave=False, disable=not shown)
    started = last = time.monotonic()
    with bar:
        for done, item in enumerate(items, start=1):
            yield item
            bar.update()
            now = time.monotonic()
            if now - last >= _LINE_SECONDS or done == total:
                last = now
                of_total = f"/{total}" if total is not None else ""
                logger.info("%s: %d%s in %.0f s", description, done, of_total, now - started)
