"""Eq. 3 and 4 and the offsets' norm, each against its sum written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from e4t_core.adapters.low_rank import LowRank
from e4t_core.losses import contrastive_loss, embedding_l2, marks_of, nearest_cosine_loss, nearest_tokens, offset_l2
from tests.e4t.conftest import rng

TAU = 0.2


def embeddings(count: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(count, 6, generator=rng(seed))


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def eq_3(v: Tensor, tokens: Tensor, negatives: list[Tensor]) -> float:
    near = sum(math.exp(cosine(v, T) / TAU) for T in tokens)
    return -math.log(near / (near + sum(math.exp(cosine(v, other) / TAU) for other in negatives)))


def test_eq_3_written_out() -> None:
    v, table = embeddings(), embeddings(20, seed=1)
    near = nearest_tokens(v, table, 3, excluded=())
    loss = contrastive_loss(v, table[near], torch.arange(4), TAU)
    for i in range(4):
        others = [v[j] for j in range(4) if j != i]
        assert float(loss[i]) == pytest.approx(eq_3(v[i], table[near[i]], others), rel=1e-4)
    torch.testing.assert_close(contrastive_loss(7 * v, 3 * table[near], torch.arange(4), TAU), loss)  # cosines


def test_samples_of_one_image_are_no_negatives_of_each_other() -> None:
    v, table = embeddings(), embeddings(20, seed=1)
    near = table[nearest_tokens(v, table, 2, excluded=())]
    marks = marks_of(["a", "b", "a", "c"], torch.device("cpu"))
    loss = contrastive_loss(v, near, marks, TAU)
    assert float(loss[0]) == pytest.approx(eq_3(v[0], near[0], [v[1], v[3]]), rel=1e-4)
    assert float(loss[1]) == pytest.approx(eq_3(v[1], near[1], [v[0], v[2], v[3]]), rel=1e-4)
    assert not contrastive_loss(v[:1], near[:1], marks[:1], TAU).any()
    assert not contrastive_loss(v[:2], near[:2], marks[[0, 2]], TAU).any()


def test_marks_are_equal_for_equal_names_and_the_same_everywhere() -> None:
    marks = marks_of(["n01440764/1", "n01440764/2", "n01440764/1"], torch.device("cpu"))
    assert marks[0] == marks[2] != marks[1]
    assert marks.dtype == torch.int64
    assert int(marks_of(["a"], torch.device("cpu"))[0]) == int.from_bytes(
        bytes.fromhex("ca978112ca1bbdca"), "big", signed=True
    )


def test_its_gradient_pulls_to_tokens_and_away_from_other_images() -> None:
    v = embeddings().requires_grad_()
    table = embeddings(20, seed=1)
    near = table[nearest_tokens(v, table, 1, excluded=())]
    contrastive_loss(v, near, torch.arange(4), TAU).mean().backward()
    assert v.grad is not None
    before, moved = v.detach(), v.detach() - 0.05 * v.grad
    after = contrastive_loss(moved, near, torch.arange(4), TAU).mean()
    assert after < contrastive_loss(before, near, torch.arange(4), TAU).mean()
    apart = [torch.nn.functional.cosine_similarity(x[:, None], x[None], dim=2).triu(1).max() for x in (before, moved)]
    assert apart[1] < apart[0]
    alone = before[:2].clone().requires_grad_()
    lonely = torch.tensor([1, 1])
    contrastive_loss(alone, near[:2], lonely, TAU).sum().backward()
    assert not alone.grad.any()  # type: ignore[union-attr] # without negatives there is nothing to tell apart


def test_nearest_tokens_by_cosine_without_those_that_are_no_words() -> None:
    table = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 5.0], [0.5, 0.5]])
    v = torch.tensor([[2.0, 0.1], [0.1, 0.2]])
    order = [sorted(range(4), key=lambda i: -cosine(v[b], table[i])) for b in range(2)]
    assert nearest_tokens(v, table, 4, excluded=()).tolist() == order
    left = [[i for i in row if i not in (0, 2)] for row in order]
    assert nearest_tokens(v, table, 2, excluded=(0, 2)).tolist() == left


def test_eq_4_and_the_cosine_in_eq_3s_place() -> None:
    v, tokens = embeddings(), embeddings(4, seed=2)
    torch.testing.assert_close(embedding_l2(v), (v * v).sum(1))
    expected = [1 - cosine(v[i], tokens[i]) for i in range(4)]
    assert nearest_cosine_loss(v, tokens).tolist() == pytest.approx(expected, rel=1e-5)


def test_offsets_norm_is_that_of_the_whole_matrices() -> None:
    g = rng(3)
    weights = {
        name: LowRank(torch.randn(2, m, 3, generator=g), torch.randn(2, 3, n, generator=g))
        for name, m, n in (("a", 5, 4), ("b", 2, 7))
    }
    expected = sum(one.matrix().square().sum((1, 2)) for one in weights.values())
    torch.testing.assert_close(offset_l2(weights), expected)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(offset_l2(weights), expected)
