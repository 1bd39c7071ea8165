"""Permutations of any length that take no memory: each place is computed by itself.

A Feistel network over the next even number of bits; places beyond the length are
permuted again until they fall within it (cycle walking, at most four times on average).
Its rounds mix with the finalizer of SplitMix64.

Quality: chi-squared tests of where records go, of the steps between them and of low
bits, and a count of neighbours in one batch, cannot tell it from
`numpy.random.Generator.permutation` (see the tests of this module). It reaches at most
`2**512` of the permutations. It is meant for shuffling, not for secrets.

Sources: Luby and Rackoff, How to construct pseudorandom permutations, 1988; Black and
Rogaway, Ciphers with arbitrary finite domains, 2002; Steele et al., Fast splittable
pseudorandom number generators, 2014.
"""

from collections.abc import Sequence

import numpy as np

# Four suffice where a round is a random function of many bits (Luby and Rackoff); with
# as few as here, more are advised (Black and Rogaway, section 6).
_ROUNDS = 8


def permute(places: np.ndarray, size: int, key: Sequence[int]) -> np.ndarray:
    """Permutes some of the places from 0 to `size` - 1.

    Args:
        places: `[M]`, integers of these.
        size: Number of all places, below 2**62.
        key: Numbers from 0 on, which choose the permutation.

    Returns:
        `[M]` int64; over all places each of them once.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    keys = np.random.SeedSequence(list(key)).generate_state(_ROUNDS, np.uint64)
    permuted = _encipher(places.astype(np.uint64), half, keys)
    beyond = np.flatnonzero(permuted >= size)
    while len(beyond):
        permuted[beyond] = _encipher(permuted[beyond], half, keys)
        beyond = beyond[permuted[beyond] >= size]
    return permuted.astype(np.int64)


def _encipher(values: np.ndarray, half: int, keys: np.ndarray) -> np.ndarray:
    """Permutes numbers of twice `half` bits."""
    mask, width = np.uint64((1 << half) - 1), np.uint64(half)
    left, right = values >> width, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right + key) & mask)
    return (left << width) | right


def _mix(values: np.ndarray) -> np.ndarray:
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
