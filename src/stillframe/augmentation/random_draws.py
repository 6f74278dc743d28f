"""Random draws that depend on (seed, epoch, sample index) and on nothing else.

Not on the number of workers, on the rank, on the composition of a batch, or on where a run was resumed.

The generator is SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014)
used by position: number n of a key is `mix(key + n * GOLDEN)`, so that a draw needs none before it
(counter-based, as in Salmon et al.: Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011).
"""

from __future__ import annotations

import random
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio, odd
MULTIPLIER_1 = 0xBF58476D1CE4E5B9
MULTIPLIER_2 = 0x94D049BB133111EB
ALL_BITS = (1 << 64) - 1
OFFLINE = 1 << 32  # offline copy k is drawn as "epoch" OFFLINE + k: never the draw of an epoch of training
PCG_INCREMENT = (GOLDEN << 64) | 0xDA3E39CB94B95BDB  # odd; one stream, the state tells samples apart

RandomKeys = NDArray[np.uint64]


def mix(state: RandomKeys) -> RandomKeys:
    """The output function of SplitMix64: a bijection in which each bit moves half of all 64 bits."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(MULTIPLIER_1)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(MULTIPLIER_2)
    return state ^ (state >> np.uint64(31))


def draw_bits(state: RandomKeys, first: int, count: int) -> RandomKeys:
    """Outputs first .. first + count - 1 (0-based) of SplitMix64 seeded with each `state`: (B, count)."""
    number = np.arange(first + 1, first + count + 1, dtype=np.uint64)
    return mix(state[:, None] + number[None, :] * np.uint64(GOLDEN))


@lru_cache(maxsize=64)  # asked for with every batch
def epoch_bits(seed: int, epoch: int) -> int:
    """What a seed and an epoch add to the key of every sample, in 0 .. 2**64 - 1."""
    of_seed = mix(np.array([(seed + GOLDEN) & ALL_BITS], dtype=np.uint64))
    return int(mix((of_seed ^ np.uint64(epoch & ALL_BITS)) + np.uint64(GOLDEN))[0])


def keys(seed: int, epoch: int, index_B: NDArray[np.int64]) -> RandomKeys:
    """The key of each sample in an epoch: uint64 (B,)."""
    index = np.asarray(index_B).astype(np.uint64)
    return mix((index ^ np.uint64(epoch_bits(seed, epoch))) + np.uint64(GOLDEN))


def uniform(key_B: RandomKeys, first: int, count: int) -> NDArray[np.float64]:
    """Draws number first .. first + count - 1 of each key: (B, count), in [0, 1)."""
    return (draw_bits(key_B, first, count) >> np.uint64(11)).astype(np.float64) * 2.0**-53


class KeyedRandom(random.Random):
    """A `random.Random` and a numpy generator (`.generator`) on one PCG64 stream, re-keyed in about 1 us.

    albumentations draws from both kinds. Its own `set_random_seed` makes two new generators per transform
    (38 us for three transforms: twice the work of the transforms at 128 px).
    """

    def __init__(self) -> None:
        self.bits = np.random.PCG64(0)
        self.generator = np.random.Generator(self.bits)
        self.pcg: Any = {
            "bit_generator": "PCG64",
            "state": {"state": 0, "inc": PCG_INCREMENT},
            "has_uint32": 0,
            "uinteger": 0,
        }
        super().__init__(0)

    def rekey(self, high: int, low: int) -> None:
        """Start the stream of the 128-bit state `high` * 2**64 + `low`."""
        self.pcg["state"]["state"] = (high << 64) | low
        self.bits.state = self.pcg

    def random(self) -> float:
        """The next draw, in [0, 1); all other methods of `random.Random` are built on it."""
        return self.generator.random()
