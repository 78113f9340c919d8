"""Eq. 2: both terms, every sample computed with the weights that were predicted for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from e4t_core.adapters.lidb import LiDBConfig, lidb_projections
from e4t_core.adapters.low_rank import merged
from e4t_core.backbones.base import Backbone
from e4t_core.config import validate
from e4t_core.errors import CheckpointMismatch, DataError, UsageError
from e4t_core.losses import diffusion_loss, draw_noise
from e4t_core.methods.base import Losses
from e4t_core.methods.hyperdreambooth import HyperDreamBooth, HyperDreamBoothConfig, HyperDreamBoothModule
from e4t_core.record import Record
from e4t_core.storage import Store
from e4t_core.training import TrainConfig, load_module, save_module, train
from tests.e4t.conftest import CLIP_DIMS, Fixed, batch_of, rng
from tests.hyperdreambooth.conftest import Make
from tests.hyperdreambooth.test_hypernetwork import stirred


def built(method: HyperDreamBooth, backbone: Backbone) -> HyperDreamBoothModule:
    module = method.build(backbone, CLIP_DIMS)
    assert isinstance(module, HyperDreamBoothModule)
    return module


def losses_of(
    method: HyperDreamBooth,
    module: nn.Module,
    backbone: Backbone,
    batch: dict[str, Any],
    g: torch.Generator | None = None,
) -> Losses:
    with method.step(module):
        return method.pretrain_loss(module, backbone, batch, g or rng())


def with_targets(module: HyperDreamBoothModule, backbone: Backbone, size: int = 3) -> dict[str, Any]:
    drawn = 0.1 * torch.randn(size, module.space.numbers, generator=rng(8))
    return {**batch_of(backbone, size), "lidb": module.initial_P + drawn}


def test_eq_2_is_the_mean_over_samples_each_with_its_own_weights(backbone: Backbone, make_method: Make) -> None:
    method = make_method(alpha=0.5, beta=0.25, mask=True)
    module = stirred(built(method, backbone))
    batch = with_targets(module, backbone)
    with torch.no_grad():
        found = losses_of(method, module, backbone, batch, rng(4))

    x0, eps, t = draw_noise(backbone, batch["latent_moments"], rng(4))
    x_t, target = backbone.schedule.add_noise(x0, eps, t), backbone.schedule.target(x0, eps, t)
    mask = torch.nn.functional.adaptive_avg_pool2d(batch["masks"], backbone.latent_shape[1:])
    ids = backbone.tokenize(["a sks face"])
    diffusion, distance = 0.0, 0.0
    with torch.no_grad():
        theta = module(batch["clip_cls"], batch["clip_tokens"])
        for i in range(3):
            own = module.space.expand(module.space.unflat(module.initial_P + theta[i : i + 1]))
            one = slice(i, i + 1)
            with merged(lidb_projections(backbone), own):
                said = backbone.denoise(x_t[one], t[one], backbone.encode_text(ids))
            diffusion += float(diffusion_loss(said, target[one], mask[one])) / 3
            distance += float((module.initial_P + theta[i] - batch["lidb"][i]).square().sum()) / 3
    assert float(found.terms["diffusion"]) == pytest.approx(diffusion, rel=1e-4)
    assert float(found.terms["distance"]) == pytest.approx(distance, rel=1e-5)
    assert float(found.total) == pytest.approx(0.5 * diffusion + 0.25 * distance, rel=1e-4)


def test_the_distance_is_zero_where_everybody_starts(backbone: Backbone, make_method: Make) -> None:
    """Targets and predictions live in one gauge: nothing predicted is nothing tuned."""
    method = make_method()
    module = built(method, backbone)
    batch = {**batch_of(backbone, 2), "lidb": module.space.flat(module.space.initial(2))}
    assert not losses_of(method, module, backbone, batch).terms["distance"].any()


def test_weights_of_the_terms_decide_what_is_read(backbone: Backbone, make_method: Make) -> None:
    assert make_method().columns == ("latent", "clip", "lidb")
    assert make_method(beta=0.0, mask=True).columns == ("latent", "clip", "mask")
    module, batch = built(make_method(), backbone), batch_of(backbone, 2)
    assert set(losses_of(make_method(beta=0.0), module, backbone, batch).terms) == {"diffusion"}
    far = losses_of(make_method(alpha=0.0), module, backbone, with_targets(module, backbone))
    assert set(far.terms) == {"distance"}


def test_training_learns_whose_weights_are_whose(backbone: Backbone, make_method: Make) -> None:
    method = make_method(alpha=0.0, beta=1.0)
    module = built(method, backbone)
    batch = with_targets(module, backbone)
    shown: list[float] = []
    cfg = TrainConfig(steps=60, batch_size=3, base_lr=1e-2, scale_lr=False, log_every=1)
    train(
        method, module, backbone, Fixed([batch]), cfg, seed=0, on_log=lambda _step, row: shown.append(row["distance"])
    )
    assert shown[-1] < 0.1 * shown[0]
    with torch.no_grad():
        theta = module(batch["clip_cls"], batch["clip_tokens"]) + module.initial_P
    assert torch.cdist(theta, batch["lidb"]).argmin(1).tolist() == [0, 1, 2]


def test_data_that_does_not_fit_is_told(backbone: Backbone, make_method: Make) -> None:
    method = make_method()
    module = built(method, backbone)
    batch = with_targets(module, backbone)
    with pytest.raises(DataError, match=r"has no patch tokens.*stages\.clip\.tokens=true"):
        method.pretrain_loss(module, backbone, {k: v for k, v in batch.items() if k != "clip_tokens"}, rng())
    with pytest.raises(DataError, match=r"holds 7 numbers an identity, and method\.lidb .* has 525"):
        method.pretrain_loss(module, backbone, {**batch, "lidb": torch.zeros(3, 7)}, rng())


def test_a_checkpoint_of_other_bases_is_refused(backbone: Backbone, make_method: Make, tmp_path: Any) -> None:
    store, record = Store(tmp_path), Record.of("module", {})
    save_module(store, "m.safetensors", built(make_method(), backbone), record)
    other = built(make_method(lidb=LiDBConfig(a=4, b=3, seed=9)), backbone)
    with pytest.raises(CheckpointMismatch, match=r"method\.lidb\.seed is 0 there and 9 here"):
        load_module(store, "m.safetensors", other)
    changed = built(make_method(), backbone)
    changed.bases += 0.01  # as if another library's bases came out of the same seed
    save_module(store, "m.safetensors", changed, record)
    with pytest.raises(CheckpointMismatch, match="the hypernetwork was made in other LiDB bases"):
        load_module(store, "m.safetensors", built(make_method(), backbone))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"width": 30, "heads": 4}, "width 30 is no multiple of heads 4"),
        ({"alpha": 0.0, "beta": 0.0}, "nothing to minimize"),
    ],
)
def test_settings_that_make_no_sense_are_refused(section: dict[str, Any], message: str) -> None:
    about = {"name": "hyperdreambooth", "domain_word": "face", "templates": ["{}"]}
    with pytest.raises(UsageError, match=message):
        validate(HyperDreamBoothConfig, {**about, **section}, "method")
