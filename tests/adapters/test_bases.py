"""Bases from a seed: orthonormal, private, and the same for years."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from e4t_core.adapters.bases import checksum, normals, orthonormal, same


def test_columns_are_orthonormal_whatever_the_shape() -> None:
    for rows, columns in ((7, 7), (320, 100), (10, 1)):
        q = orthonormal(3, "x", rows, columns)
        assert q.shape == (rows, columns)
        np.testing.assert_allclose(q.T @ q, np.eye(columns), atol=1e-12)
    with pytest.raises(ValueError, match="5 columns of 4 numbers"):
        orthonormal(0, "x", 4, 5)


def test_the_numbers_are_these_for_ever() -> None:
    """If this fails, every file of weights that exists has become unreadable: a new _PURPOSE, not new numbers here."""
    np.testing.assert_allclose(normals(0, "a stream", 4), PINNED_NORMALS, rtol=1e-12)
    np.testing.assert_allclose(orthonormal(0, "a stream", 3, 2).ravel(), PINNED_BASIS, rtol=1e-10)


PINNED_NORMALS = [1.254475046677787, -0.37973789678283115, -1.2924332660392437, -0.9518732313262348]
PINNED_BASIS = [
    0.632690180139517,
    -0.4134239172227809,
    -0.6518342776719281,
    -0.7408403222277248,
    0.418109089122613,
    -0.5293734802856039,
]


def test_they_are_normal() -> None:
    drawn = normals(1, "many", 200_001)
    assert drawn.mean() == pytest.approx(0, abs=0.01)
    assert drawn.std() == pytest.approx(1, abs=0.01)
    assert (np.abs(drawn) > 1.96).mean() == pytest.approx(0.05, abs=0.003)


def test_seed_and_stream_tell_bases_apart() -> None:
    one = orthonormal(0, "a", 20, 4)
    assert not np.allclose(one, orthonormal(1, "a", 20, 4))
    assert not np.allclose(one, orthonormal(0, "b", 20, 4))


def test_nobody_elses_random_stream_is_touched_or_read() -> None:
    np.random.seed(5)
    torch.manual_seed(5)
    before = (np.random.get_state()[1].copy(), torch.get_rng_state())
    orthonormal.cache_clear()
    one = orthonormal(0, "a", 20, 4)
    assert (np.random.get_state()[1] == before[0]).all()
    assert torch.equal(torch.get_rng_state(), before[1])
    np.random.seed(6)
    orthonormal.cache_clear()
    assert (orthonormal(0, "a", 20, 4) == one).all()


def test_another_process_draws_the_same() -> None:
    code = "from e4t_core.adapters.bases import *; print(checksum([orthonormal(9, 'p', 300, 100)]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert same(float(done.stdout), checksum([orthonormal(9, "p", 300, 100)]))


def test_a_checksum_forgives_rounding_and_nothing_else() -> None:
    bases = [orthonormal(0, str(n), 50, 10) for n in range(3)]
    whole = checksum(bases)
    assert same(whole, checksum([b + 1e-15 for b in bases]))
    assert not same(whole, checksum(bases[::-1]))
    assert not same(whole, checksum([*bases[:2], orthonormal(1, "2", 50, 10)]))
    assert not same(whole, checksum([bases[0], bases[1], -bases[2]]))
