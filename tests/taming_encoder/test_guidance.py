"""A weight of its own for the object at sampling, held against ordinary guidance."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import Tensor

from e4t_core.backbones.base import Backbone
from e4t_core.errors import UsageError
from e4t_core.methods import Adapter
from e4t_core.methods.base import ObjectConditioning
from e4t_core.sampling import SamplerConfig, TextConditioning, sample
from tests.e4t.conftest import identity_of
from tests.taming_encoder.conftest import Make, trained


class Known(ObjectConditioning):
    """Predictions that are known numbers, and a count of what was asked for."""

    VALUES: ClassVar[dict[tuple[bool, bool], float]] = {(False, False): 1.0, (True, False): 3.0, (True, True): 10.0}

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone, [""])
        self.asked: list[tuple[bool, bool]] = []
        self.given: list[Tensor] = []

    def text(self, x_t_BChw: Tensor, t_B: Tensor, step: int) -> Tensor:
        return torch.full((len(x_t_BChw), self.backbone.max_tokens, self.backbone.text_width), 1e6)

    def denoise_seeing(self, x_t_BChw: Tensor, t_B: Tensor, text_BTD: Tensor, seeing_B: Tensor) -> Tensor:
        prompted = (text_BTD == 1e6).flatten(1).all(1)
        self.asked = list(zip(seeing_B.tolist(), prompted.tolist(), strict=True))
        return torch.stack([torch.full_like(x, self.VALUES[one]) for x, one in zip(x_t_BChw, self.asked, strict=True)])


def prediction(backbone: Backbone, monkeypatch: pytest.MonkeyPatch, **fields: float) -> tuple[float, Known]:
    """What the scheduler is given for two images, whose guidance is the same."""
    from e4t_core.sampling import sampler

    found: list[Tensor] = []
    real = sampler._guided
    monkeypatch.setattr(sampler, "_guided", lambda *args: found.append(real(*args)) or found[-1])
    known = Known(backbone)
    sample(backbone, known, SamplerConfig(steps=1, **fields), seeds=[1, 2])  # type: ignore[arg-type]
    monkeypatch.undo()
    values = found[0].unique().tolist()
    assert len(values) == 1
    return values[0], known


@pytest.mark.parametrize(
    ("text", "weight", "expected", "evaluations"),
    [
        (7.0, None, 1 + 7 * (10 - 1), 2),  # ordinary guidance: away from no object and no prompt
        (7.0, 7.0, 1 + 7 * (10 - 1), 2),
        (7.0, 3.0, 1 + 3 * (3 - 1) + 7 * (10 - 3), 3),
        (7.0, 0.0, 1 + 7 * (10 - 3), 3),
        (7.0, 1.0, 3 + 7 * (10 - 3), 2),
        (1.0, None, 10, 1),
        (1.0, 1.0, 10, 1),
        (1.0, 4.0, 1 + 4 * (3 - 1) + (10 - 3), 3),
        (0.0, 2.0, 1 + 2 * (3 - 1), 3),
    ],
)
def test_instructpix2pix_eq_3(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch, text: float, weight: float, expected: float, evaluations: int
) -> None:
    """``eps(phi, "") + s_o (eps(o, "") - eps(phi, "")) + s_t (eps(o, c) - eps(o, ""))``."""
    fields = {"guidance": text} | ({} if weight is None else {"object_guidance": weight})
    value, known = prediction(backbone, monkeypatch, **fields)
    assert value == pytest.approx(expected)
    assert len(known.asked) == 2 * evaluations  # of two images
    assert known.asked[-2:] == [(True, True)] * 2


def test_equal_weights_are_ordinary_guidance_bit_for_bit(make_method: Make, backbone: Backbone) -> None:
    method = make_method()
    module = trained(method, backbone)
    adapter = method.personalize(module, backbone, [identity_of("ann", 1)])[0]

    def draw(adapter: Adapter, **fields: float) -> Tensor:
        conditioning = method.conditioning(
            module, backbone, adapter, identity_of("ann", 1), [f"a photo of {backbone.placeholder}"]
        )
        return sample(backbone, conditioning, SamplerConfig(steps=2, **fields), seeds=[1, 2])  # type: ignore[arg-type]

    plain = draw(adapter, guidance=3.0)
    assert torch.equal(draw(adapter, guidance=3.0, object_guidance=3.0), plain)
    assert not torch.equal(draw(adapter, guidance=3.0, object_guidance=1.0), plain)
    # no prompt's weight and no object's: the null embedding and the empty prompt alone, whoever it is of
    nothing = draw(adapter, guidance=0.0, object_guidance=0.0)
    other = method.personalize(module, backbone, [identity_of("bob", 2)])[0]
    torch.testing.assert_close(draw(other, guidance=0.0, object_guidance=0.0), nothing, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(draw(other, guidance=3.0), plain, rtol=1e-4, atol=1e-4)
    # without an object its weight means nothing
    phi = Adapter("taming_encoder", "ann", {}, adapter.meta)
    weighed = draw(phi, guidance=3.0, object_guidance=8.0)
    torch.testing.assert_close(weighed, draw(phi, guidance=3.0), rtol=1e-4, atol=1e-4)


def test_what_has_no_object_refuses_its_weight(backbone: Backbone) -> None:
    with pytest.raises(UsageError, match=r"sampler\.object_guidance is 2, but TextConditioning has no object"):
        sample(backbone, TextConditioning(backbone, ["a"]), SamplerConfig(steps=1, object_guidance=2.0), seeds=[1])


def test_the_field_enters_a_dump_only_if_it_is_used() -> None:
    """Units of images that were made before it was there stay made."""
    assert "object_guidance" not in SamplerConfig().dump()
    assert SamplerConfig(object_guidance=2.0).dump()["object_guidance"] == 2.0
