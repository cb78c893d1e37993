"""One seed for a study, split by name, so that every random stream is independent of the others."""

from __future__ import annotations

import zlib

import numpy as np


def seed_sequence(seed: int, *names: str | int) -> np.random.SeedSequence:
    """The stream that ``names`` have under ``seed``; the same names give the same stream.

    A stream depends on nothing but ``seed`` and ``names``: not on which others were drawn before.
    """
    key = tuple(zlib.crc32(str(name).encode()) for name in names)
    return np.random.SeedSequence(seed, spawn_key=key)


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """A numpy generator on the stream of ``names``."""
    return np.random.default_rng(seed_sequence(seed, *names))


def integer_seed(seed: int, *names: str | int) -> int:
    """A 63-bit integer from the stream of ``names``, for libraries that take an integer."""
    return int(seed_sequence(seed, *names).generate_state(1, np.uint64)[0] >> np.uint64(1))
