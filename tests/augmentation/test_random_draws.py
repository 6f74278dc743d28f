"""A draw depends on (seed, epoch, index) only."""

import numpy as np
import pytest

from stillframe.augmentation import random_draws


def test_splitmix64_gives_the_published_numbers():
    seed = np.array([1234567], dtype=np.uint64)  # the reference sequence of the public-domain C code
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert random_draws.draw_bits(seed, 0, 4)[0].tolist() == expected
    assert random_draws.draw_bits(seed, 2, 2)[0].tolist() == expected[2:]  # any draw without those before it


def test_draws_of_a_sample_ignore_batch_and_order():
    whole = random_draws.uniform(random_draws.keys(3, 5, np.arange(1000)), 0, 4)
    order = np.random.default_rng(0).permutation(1000)[:77]
    np.testing.assert_array_equal(random_draws.uniform(random_draws.keys(3, 5, order), 0, 4), whole[order])
    np.testing.assert_array_equal(random_draws.uniform(random_draws.keys(3, 5, order), 2, 1), whole[order, 2:3])


def test_no_key_is_met_twice_over_seeds_epochs_and_rows():
    index = np.arange(2000)
    epochs = [0, 1, 2, 63, random_draws.OFFLINE, random_draws.OFFLINE + 1]
    all_keys = np.concatenate([random_draws.keys(seed, epoch, index) for seed in (0, 1, 2, 1234) for epoch in epochs])
    assert len(np.unique(all_keys)) == len(all_keys)


def test_uniform_is_uniform_and_draws_are_independent():
    u = random_draws.uniform(random_draws.keys(0, 0, np.arange(20_000)), 0, 3)
    assert 0 <= u.min() and u.max() < 1
    counts = np.histogram(u, bins=20, range=(0, 1))[0]
    assert abs(counts / counts.mean() - 1).max() < 0.05
    later = random_draws.uniform(random_draws.keys(0, 1, np.arange(20_000)), 0, 1)
    columns = np.corrcoef(np.column_stack([u, later, np.roll(u[:, 0], 1)]).T)
    assert np.abs(columns - np.eye(5)).max() < 0.03


def test_keyed_random_repeats_a_key_and_shares_one_stream():
    generator = random_draws.KeyedRandom()

    def take():
        return [
            generator.random(),
            generator.randint(-2, 2),
            generator.uniform(1, 3),
            generator.generator.integers(9),
        ]

    generator.rekey(5, 6)
    first = take()
    generator.rekey(5, 7)
    assert take() != first
    generator.rekey(5, 6)
    assert take() == first


@pytest.mark.parametrize("low, high", [(0, 3), (-2, 2)])
def test_keyed_random_integers_are_uniform(low, high):
    generator = random_draws.KeyedRandom()
    drawn = []
    for word_1, word_2 in random_draws.draw_bits(random_draws.keys(0, 0, np.arange(8000)), 0, 2).tolist():
        generator.rekey(word_1, word_2)
        drawn.append(generator.randint(low, high))
    share = np.bincount(np.array(drawn) - low) / len(drawn) * (high - low + 1)
    assert len(share) == high - low + 1
    assert abs(share - 1).max() < 0.1
