"""Weight offsets: the exact low-rank form, both ways of applying it, and taking it off again."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from e4t_core.adapters.modulation import Factors, modulated, modulated_per_sample
from e4t_core.adapters.weight_offsets import (
    HyperOffsets,
    OffsetPrior,
    RegularizedOffset,
    build_offsets,
    delta_matrices,
)
from e4t_core.backbones.base import Projection
from tests.e4t.conftest import assert_same, rng, snapshot

M, N = 6, 4


def shaken(module: nn.Module, seed: int = 0, scale: float = 0.3) -> nn.Module:
    """``module`` with random values everywhere, also where it starts at zero."""
    g = rng(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=g) * scale)
    return module


def layers(bias: bool = False) -> dict[str, Projection]:
    net = nn.Sequential(nn.Linear(N, M, bias=bias), nn.Linear(N, N, bias=bias))
    shaken(net, 5, 1.0)
    return {f"unet.a.{i}": Projection(f"unet.a.{i}", m, "q", "self", "unet", "down") for i, m in enumerate(net)}


def as_the_paper_writes_it(offset: RegularizedOffset) -> Tensor:
    """E4T section 3.2, step by step, on the M x N matrix."""
    prior = offset.prior
    matrix = torch.outer(prior.to_y(offset.v0), prior.to_x(offset.v0))
    over_rows = prior.rows(matrix)
    return prior.columns(over_rows.T).T


@pytest.mark.parametrize("v0_size", [1, 5])
def test_compact_form_is_exact(v0_size: int) -> None:
    offset = shaken(RegularizedOffset((M, N), v0_size, rng()))
    torch.testing.assert_close(offset(), as_the_paper_writes_it(offset), rtol=1e-5, atol=1e-6)
    assert torch.linalg.matrix_rank(offset()) == 3
    compact = offset.compact()
    assert sum(t.numel() for t in compact.values()) == 3 * (M + N)


def test_compact_form_has_the_same_gradients() -> None:
    offset = shaken(RegularizedOffset((M, N), 2, rng()))
    weights = torch.randn(M, N, generator=rng(3))
    ours = torch.autograd.grad((offset() * weights).sum(), list(offset.parameters()))
    paper = torch.autograd.grad((as_the_paper_writes_it(offset) * weights).sum(), list(offset.parameters()))
    for a, b in zip(ours, paper, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["regularized", "direct", "hypernetwork"])
def test_starts_at_zero_and_can_leave_it(kind: str) -> None:
    offsets = build_offsets(kind, layers(), v0_size=1, clip_width=8, rng=rng())
    cls_LD = torch.randn(3, 8, generator=rng(1))
    deltas = delta_matrices(offsets.compact(cls_LD))
    assert deltas.keys() == layers().keys()
    assert all(not d.any() for d in deltas.values())
    sum((d * torch.randn(d.shape, generator=rng(2))).sum() for d in deltas.values()).backward()
    assert any(p.grad is not None and p.grad.any() for p in offsets.parameters())


def test_same_seed_same_start_and_no_global_generator() -> None:
    projections = layers()
    state = torch.get_rng_state()
    one, two = (build_offsets("regularized", projections, v0_size=2, clip_width=8, rng=rng(4)) for _ in range(2))
    other = build_offsets("regularized", projections, v0_size=2, clip_width=8, rng=rng(5))
    assert_same(snapshot(one), snapshot(two))
    rows = "layers.unet/a/0.prior.rows.weight"
    assert not torch.equal(one.state_dict()[rows], other.state_dict()[rows])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_zero_offset_changes_no_bit_and_leaves_no_trace(dtype: torch.dtype) -> None:
    projections = layers()
    for p in projections.values():
        p.module.to(dtype)
    before = {n: (p.module.weight, p.module.weight.detach().clone(), type(p.module)) for n, p in projections.items()}
    offsets = build_offsets("regularized", projections, v0_size=1, clip_width=8, rng=rng())
    with offsets.on(projections):
        for name, p in projections.items():
            assert p.module.weight is not before[name][0]
            assert torch.equal(p.module.weight, before[name][1])
            assert p.module.weight.dtype == dtype
            assert len(list(p.module.parameters())) == 1, "the layer shows parameters that are not its own"
    for name, p in projections.items():
        assert p.module.weight is before[name][0]
        assert torch.equal(p.module.weight, before[name][1])
        assert type(p.module) is before[name][2]


def test_taken_off_after_an_exception() -> None:
    projections = layers()
    weights = [p.module.weight for p in projections.values()]
    offsets = shaken(build_offsets("regularized", projections, v0_size=1, clip_width=8, rng=rng()))
    with pytest.raises(RuntimeError, match="stop"), offsets.on(projections), offsets.held():
        raise RuntimeError("stop")
    assert all(p.module.weight is w for p, w in zip(projections.values(), weights, strict=True))


def test_modulated_is_eq_3() -> None:
    projections = layers()
    offsets = shaken(build_offsets("direct", projections, v0_size=1, clip_width=8, rng=rng()))
    deltas = delta_matrices(offsets.compact(torch.zeros(1, 8)))
    W0 = {n: p.module.weight.detach().clone() for n, p in projections.items()}
    with offsets.on(projections):
        for name, p in projections.items():
            torch.testing.assert_close(p.module.weight, W0[name] * (1 + deltas[name]))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(2, N), (2, 7, N), (2, 3, 5, N)])
def test_per_sample_form_equals_the_parametrized_one(bias: bool, shape: tuple[int, ...]) -> None:
    projections = {k: v for k, v in layers(bias).items() if k.endswith("0")}
    (name, projection), x = next(iter(projections.items())), torch.randn(shape, generator=rng(7))
    factors = [Factors(torch.randn(3, M, generator=rng(i)), torch.randn(3, N, generator=rng(i + 9))) for i in (0, 1)]
    expected = []
    for i, one in enumerate(factors):
        with modulated(projections, {name: one.matrix}):
            expected.append(projection.module(x[i : i + 1]))
    both = Factors(torch.stack([f.u for f in factors]), torch.stack([f.v for f in factors]))
    with modulated_per_sample(projections, {name: both}):
        torch.testing.assert_close(projection.module(x), torch.cat(expected), rtol=1e-5, atol=1e-5)
        doubled = projection.module(torch.cat([x, x]))  # classifier-free guidance
        torch.testing.assert_close(doubled, torch.cat(expected * 2), rtol=1e-5, atol=1e-5)
    assert not projection.module._forward_hooks


def test_held_weights_are_computed_once_and_collect_gradients_of_several_passes() -> None:
    projections = layers()
    offsets = shaken(build_offsets("regularized", projections, v0_size=1, clip_width=8, rng=rng()))
    x = [torch.randn(3, N, generator=rng(i)) for i in range(2)]

    def loss(i: int) -> Tensor:
        return sum((p.module(x[i]).square().mean() for p in projections.values()), torch.zeros(()))

    with offsets.on(projections):
        (loss(0) + loss(1)).backward()
    plain = [p.grad.clone() for p in offsets.parameters()]
    offsets.zero_grad()
    with offsets.on(projections), offsets.held():
        with torch.no_grad():
            loss(0)  # a first use without gradients must not fix a weight that has no graph
        kept = [p.module.weight for p in projections.values()]
        loss(0).backward()
        loss(1).backward()
        assert all(p.module.weight is w for p, w in zip(projections.values(), kept, strict=True))
    for a, b in zip(plain, offsets.parameters(), strict=True):
        torch.testing.assert_close(a, b.grad)


def test_hypernetwork_gives_every_image_its_own_offsets() -> None:
    projections = {k: v for k, v in layers().items() if k.endswith("0")}
    offsets = shaken(build_offsets("hypernetwork", projections, v0_size=1, clip_width=8, rng=rng()))
    assert isinstance(offsets, HyperOffsets)
    cls_BLD, x = torch.randn(2, 3, 8, generator=rng(1)), torch.randn(1, 5, N, generator=rng(2)).expand(2, -1, -1)
    module = next(iter(projections.values())).module
    with offsets.on(projections):
        offsets.condition(cls_BLD)
        both = module(x)
    assert not torch.allclose(both[0], both[1])
    for i in range(2):
        alone = delta_matrices(offsets.compact(cls_BLD[i]))
        with modulated(projections, {n: (lambda d=d: d) for n, d in alone.items()}):
            torch.testing.assert_close(module(x[:1]), both[i : i + 1], rtol=1e-5, atol=1e-5)


def test_prior_parameters() -> None:
    count = sum(p.numel() for p in OffsetPrior((M, N), 1, rng()).parameters())
    assert count == 2 * M + 2 * N + N * N + N + M * M + M
