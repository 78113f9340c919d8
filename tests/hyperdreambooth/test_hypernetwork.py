"""The hypernetwork: sizes of the paper, eq. 3, and where its initial values come from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from e4t_core.backbones.stable_diffusion import StableDiffusionBackbone
from e4t_core.methods.hyperdreambooth import HyperDreamBooth, HyperDreamBoothConfig, HyperDreamBoothModule
from e4t_core.models.hypernetwork import HyperNetwork, PieceLinears
from tests.e4t.conftest import assert_same, rng, snapshot

SIZES = (4, 3, 4, 2)
VIT_H = (16, 1280)


def network(seed: int = 0, **fields: Any) -> HyperNetwork:
    about: dict[str, Any] = {"width": 16, "heads": 2, "blocks": 2, "iterations": 3, "unit": 0.5}
    return HyperNetwork(12, SIZES, **{**about, **fields}, rng=rng(seed))


def stirred(module: torch.nn.Module) -> Any:
    """As if trained."""
    g = rng(3)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn(p.shape, generator=g) * 0.1)
    return module


def tokens(batch: int = 2) -> Tensor:
    return torch.randn(batch, 5, 12, generator=rng(1))


def test_at_stable_diffusions_size_it_gives_28_800_numbers_for_192_layers() -> None:
    backbone = StableDiffusionBackbone.from_config("sd15")
    config = HyperDreamBoothConfig(name="hyperdreambooth", domain_word="face", templates=("{}",))
    module = HyperDreamBooth(config).build(backbone, VIT_H)
    assert isinstance(module, HyperDreamBoothModule)
    assert len(module.space.shapes) == 192
    assert module.network.pieces == 2 * 192
    image = torch.empty(2, 16, 1280, device="meta"), torch.empty(2, 256, 1280, device="meta")
    assert module(*image).shape == (2, 28_800)
    # in and out of the transformer, for every number; the transformer; positions; the image's linear
    blocks = 2 * (12 * 1024**2 + 13 * 1024) + 2 * 1024
    assert sum(p.numel() for p in module.parameters()) == (
        2 * 28_800 * 1024 + 28_800 + blocks + 384 * 1024 + 1280 * 1024 + 1024
    )


def test_it_starts_at_zero_and_from_its_own_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = network()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert_same(snapshot(one), snapshot(network()))
    assert not torch.equal(one.image.weight, network(seed=1).image.weight)
    assert not one(tokens()).any()


def test_each_round_adds_to_what_the_last_one_said() -> None:
    """Eq. 3: s rounds are the first s - 1 and one more that sees their result; the image is read once."""
    three = stirred(network())
    two = network(iterations=2)
    two.load_state_dict(three.state_dict())
    seen: list[Tensor] = []
    three.read.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0]))
    images: list[Tensor] = []
    three.image.register_forward_hook(lambda _m, _i, out: images.append(out))
    theta = three(tokens())
    assert len(images) == 1
    assert not seen[0].any()
    torch.testing.assert_close(seen[2] * three.unit, two(tokens()))
    torch.testing.assert_close(theta, two(tokens()) + three._delta(images[0], seen[2] * three.unit))
    assert not torch.allclose(seen[1], seen[2])


def test_images_in_a_batch_do_not_meet() -> None:
    both = tokens(2)
    trained = stirred(network())
    torch.testing.assert_close(trained(both)[1:], trained(both[1:]), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(trained(both)[0], trained(both)[1])


def test_every_piece_has_a_linear_layer_of_its_own() -> None:
    inward, outward = (stirred(PieceLinears(SIZES, 6, rng(), outward=o, device="cpu")) for o in (False, True))
    flat, rows = torch.randn(3, sum(SIZES), generator=rng(2)), torch.randn(3, len(SIZES), 6, generator=rng(4))
    groups, place = [2, 3, 4], {0: (4, 0), 1: (3, 0), 2: (4, 1), 3: (2, 0)}
    read, written = inward(flat), outward(rows).split(SIZES, dim=1)
    for piece, part in enumerate(flat.split(SIZES, dim=1)):
        size, at = place[piece]
        group = groups.index(size)
        torch.testing.assert_close(read[:, piece], part @ inward.weights[group][at])
        torch.testing.assert_close(
            written[piece], rows[:, piece] @ outward.weights[group][at] + outward.biases[group][at]
        )


def test_the_image_decides_and_its_scale_does_not() -> None:
    trained = stirred(network())
    one = trained(tokens())
    torch.testing.assert_close(trained(10 * tokens()), one, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(trained(tokens().flip(2)), one)
