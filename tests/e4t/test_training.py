"""The training loop: exact resuming, accumulation, ranks, averages, and what it says when it fails."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from e4t_core.backbones import load_backbone
from e4t_core.backbones.base import Backbone
from e4t_core.backbones.config import BackboneConfig
from e4t_core.errors import CheckpointMismatch, DataError
from e4t_core.methods import Losses, Method
from e4t_core.record import Record
from e4t_core.storage import Store
from e4t_core.training import (
    TrainConfig,
    TrainingDiverged,
    TrainState,
    load_module,
    load_state,
    noise_seed,
    save_module,
    save_state,
    train,
)
from tests.e4t.conftest import CLIP_DIMS, Fixed, assert_same, batch_of, rng

RECIPE = {"seed": 0, "train": {"steps": 6, "base_lr": 1e-3}, "workers": {"num_workers": 1}}


class Line(Method):
    """Fits a line to (x, y): a method without noise, so that sums can be checked."""

    name = "line"
    columns = ()

    def __init__(self) -> None:
        super().__init__(None)

    def build(self, backbone: Any = None, clip_dims: Any = None) -> nn.Module:
        module = nn.Linear(2, 1)
        with torch.no_grad():
            module.weight.copy_(torch.tensor([[0.5, -0.25]]))
            module.bias.zero_()
        return module

    def pretrain_loss(self, module: nn.Module, backbone: Any, batch: Mapping[str, Any], rng: torch.Generator) -> Losses:
        error = (module(batch["x"]).float() - batch["y"]).square().mean()
        return Losses(error + 0.0, {"error": error})

    personalize = conditioning = export = None  # type: ignore[assignment]


class Nowhere:
    """All that the loop asks of a backbone."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.checkpointing = False

    def enable_gradient_checkpointing(self) -> None:
        self.checkpointing = True


def points(count: int, size: int, seed: int = 0) -> list[dict[str, Any]]:
    g = rng(seed)
    return [{"x": torch.randn(size, 2, generator=g), "y": torch.randn(size, 1, generator=g)} for _ in range(count)]


def fit(batches: list[dict[str, Any]], **fields: Any) -> tuple[nn.Module, TrainState, dict[int, dict[str, float]]]:
    extra = {k: fields.pop(k) for k in ("rank", "world_size", "all_reduce", "on_checkpoint") if k in fields}
    cfg = TrainConfig(**({"steps": 4, "batch_size": 2, "base_lr": 0.05, "scale_lr": False, "log_every": 1} | fields))
    module, logs = Line().build(), {}
    state = train(Line(), module, Nowhere(), Fixed(batches), cfg, seed=0, on_log=logs.__setitem__, **extra)  # type: ignore[arg-type]
    return module, state, logs


# --- resuming


@pytest.mark.parametrize("ema", [None, 0.9])
def test_resumed_curve_equals_the_undisturbed_one(
    ema: float | None, backbone: Backbone, make_method: Callable[..., Method], tmp_path: Path
) -> None:
    method, store, record = make_method(), Store(tmp_path), Record.of("checkpoint", RECIPE)
    batches = [batch_of(backbone, 2, seed) for seed in range(5)]
    settings = {"steps": 6, "batch_size": 2, "base_lr": 1e-3, "grad_accum": 2, "warmup_steps": 4, "grad_clip": 1.0}
    cfg = TrainConfig(**settings, ema_decay=ema, log_every=1, checkpoint_every=3)

    def run(start: TrainState | None, **hooks: Any) -> tuple[TrainState, dict[int, dict[str, float]]]:
        logs: dict[int, dict[str, float]] = {}
        module = method.build(backbone, CLIP_DIMS)
        end = train(
            method, module, backbone, Fixed(batches), cfg, seed=7, start=start, on_log=logs.__setitem__, **hooks
        )
        return end, logs

    whole, curve = run(None, on_checkpoint=lambda s: save_state(store, f"checkpoints/{s.step:06d}", s, record))
    start, _ = load_state(store, "checkpoints/000003", record)
    assert start.step == 3
    resumed, rest = run(start)
    assert rest == {step: facts for step, facts in curve.items() if step > 3}
    assert_same(whole.weights, resumed.weights)
    assert_same(whole.optimizer, resumed.optimizer)
    assert (resumed.loader, resumed.step) == (whole.loader, 6)
    assert curve[6]["loss"] != curve[5]["loss"]


def test_finished_run_has_nothing_to_do() -> None:
    _, state, _ = fit(points(4, 2))
    cfg = TrainConfig(steps=4, batch_size=2, scale_lr=False)
    module = Line().build()
    again = train(Line(), module, Nowhere(), Fixed(points(4, 2)), cfg, seed=0, start=state)  # type: ignore[arg-type]
    assert_same(again.module, state.module)


def test_state_does_not_change_with_later_steps() -> None:
    states: list[TrainState] = []
    _, end, _ = fit(points(4, 2), checkpoint_every=2, on_checkpoint=states.append)
    assert [s.step for s in states] == [2, 4]
    assert not torch.equal(states[0].module["weight"], end.module["weight"])
    assert (states[0].loader, end.loader) == ({"position": 2}, {"position": 4})


def test_state_of_another_recipe_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    save_state(store, "c", fit(points(4, 2))[1], Record.of("checkpoint", RECIPE))
    other = RECIPE | {"train": {"steps": 6, "base_lr": 2e-3}, "workers": {"num_workers": 2}}
    with pytest.raises(
        CheckpointMismatch, match=r"train\.base_lr is 0\.001 there and 0\.002 here; workers\.num_workers"
    ):
        load_state(store, "c", Record.of("checkpoint", other))
    load_state(store, "c", Record.of("checkpoint", other), ignore=("workers", "train.base_lr"))
    with pytest.raises(DataError, match=r"no complete checkpoint"):
        load_state(store, "absent", Record.of("checkpoint", RECIPE))


def test_incomplete_state_is_not_taken(tmp_path: Path) -> None:
    store, record = Store(tmp_path), Record.of("checkpoint", RECIPE)
    save_state(store, "c", fit(points(4, 2))[1], record)
    (tmp_path / "c" / "state.json").unlink()  # killed between the two objects
    with pytest.raises(DataError, match=r"state\.json is missing"):
        load_state(store, "c", record)


def test_state_of_another_size_is_refused() -> None:
    _, state, _ = fit(points(4, 2))
    state.module["weight"] = torch.zeros(1, 3)
    with pytest.raises(CheckpointMismatch, match=r"weight is \(1, 3\) there and \(1, 2\) here"):
        train(Line(), Line().build(), Nowhere(), Fixed(points(1, 2)), TrainConfig(steps=5), seed=0, start=state)  # type: ignore[arg-type]


# --- what a step is


def test_accumulation_equals_the_larger_batch() -> None:
    small = points(8, 2)
    large = [{k: torch.cat([small[2 * i][k], small[2 * i + 1][k]]) for k in ("x", "y")} for i in range(4)]
    one, _, logs_one = fit(small, grad_accum=2)
    two, _, logs_two = fit(large, batch_size=4)
    torch.testing.assert_close(one.weight, two.weight)
    for fact in ("loss", "grad_norm"):  # AdamW alone would hide a wrong scale
        assert [f[fact] for f in logs_one.values()] == pytest.approx([f[fact] for f in logs_two.values()])


def test_ranks_equal_the_larger_batch() -> None:
    """Two processes that see halves of every batch end where one that sees all of it ends."""
    halves = [points(4, 2, seed) for seed in (1, 2)]
    large = [{k: torch.cat([a[k], b[k]]) for k in ("x", "y")} for a, b in zip(*halves, strict=True)]
    barrier, shared, results = threading.Barrier(2), [None, None], [None, None]

    def worker(rank: int) -> None:
        def all_reduce(flat: Tensor) -> None:
            shared[rank] = flat.clone()
            barrier.wait()
            flat.copy_(shared[0] + shared[1])
            barrier.wait()

        results[rank] = fit(halves[rank], rank=rank, world_size=2, all_reduce=all_reduce)

    threads = [threading.Thread(target=worker, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    alone, _, logs = fit(large, batch_size=4)
    for module, _, rank_logs in results:
        torch.testing.assert_close(module.weight, alone.weight)
        for fact in ("error", "grad_norm"):
            assert [f[fact] for f in rank_logs.values()] == pytest.approx([f[fact] for f in logs.values()])


def test_learning_rate_is_scaled_and_warmed_up() -> None:
    cfg = TrainConfig(steps=1, batch_size=16, base_lr=1e-6)
    assert cfg.learning_rate(0, 1) == pytest.approx(1.6e-5)  # E4T section 3.5
    assert cfg.learning_rate(0, 4) == pytest.approx(6.4e-5)
    assert TrainConfig(steps=1, batch_size=16, base_lr=1e-6, grad_accum=2).learning_rate(5, 1) == pytest.approx(3.2e-5)
    _, _, logs = fit(points(4, 2), warmup_steps=4, base_lr=0.4)
    assert [f["lr"] for f in logs.values()] == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_first_step_is_adamw_by_hand() -> None:
    data, before = points(1, 2), Line().build()
    loss = Line().pretrain_loss(before, None, data[0], rng()).total
    loss.backward()
    after, _, logs = fit(data, steps=1, weight_decay=0.1)
    expected = before.weight * (1 - 0.05 * 0.1) - 0.05 * before.weight.grad.sign()
    torch.testing.assert_close(after.weight.detach(), expected.detach(), rtol=1e-5, atol=1e-6)
    norm = torch.cat([before.weight.grad.flatten(), before.bias.grad]).norm()
    assert logs[1]["grad_norm"] == pytest.approx(float(norm))


def test_clipping_limits_the_gradient() -> None:
    states = [fit(points(1, 2), steps=1, grad_clip=limit)[1] for limit in (None, 0.01)]
    norms = [torch.cat([s.optimizer[f"{n}.exp_avg"].flatten() for n in ("weight", "bias")]).norm() for s in states]
    assert norms[1] == pytest.approx(0.01 * 0.1, rel=1e-3)  # AdamW keeps (1 - beta1) of it
    assert norms[0] > norms[1]


def test_average_follows_the_weights() -> None:
    states: list[TrainState] = []
    fit(points(3, 2), steps=3, ema_decay=0.5, checkpoint_every=1, on_checkpoint=states.append)
    expected = Line().build().weight.detach()
    for state in states:
        expected = 0.5 * expected + 0.5 * state.module["weight"]
        torch.testing.assert_close(state.ema["weight"], expected)
        assert torch.equal(state.weights["weight"], state.ema["weight"])


def test_average_is_what_is_saved_for_generation(tmp_path: Path) -> None:
    module, state, _ = fit(points(4, 2), ema_decay=0.5)
    save_module(Store(tmp_path), "m.safetensors", module, Record.of("module", {}), state.weights)
    fresh = Line().build()
    load_module(Store(tmp_path), "m.safetensors", fresh)
    assert torch.equal(fresh.weight, state.ema["weight"])
    assert not torch.equal(fresh.weight, module.weight)


def test_logs_and_checkpoints_come_when_asked() -> None:
    saved: list[int] = []
    _, _, logs = fit(
        points(4, 2), steps=7, log_every=3, checkpoint_every=3, on_checkpoint=lambda s: saved.append(s.step)
    )
    assert list(logs) == [1, 3, 6, 7]
    assert saved == [3, 6, 7]
    assert logs[1].keys() == {"loss", "error", "grad_norm", "lr"}


def test_loss_that_is_not_finite_stops_with_its_name() -> None:
    data = points(4, 2)
    data[2]["y"][0] = float("nan")
    saved: list[int] = []
    with pytest.raises(TrainingDiverged, match=r"step 2: loss = nan, error = nan, .*lower train\.base_lr"):
        fit(data, checkpoint_every=1, on_checkpoint=lambda s: saved.append(s.step))
    assert saved == [1, 2], "the last good state was saved, the bad one was not"


def test_precision_is_autocast(backbone: Backbone, make_method: Callable[..., Method]) -> None:
    method, curves = make_method(), []
    for precision in ("fp32", "bf16"):
        logs: dict[int, dict[str, float]] = {}
        cfg = TrainConfig(steps=2, batch_size=2, base_lr=1e-4, precision=precision, log_every=1)
        module = method.build(backbone, CLIP_DIMS)
        train(method, module, backbone, Fixed([batch_of(backbone, 2)]), cfg, seed=0, on_log=logs.__setitem__)
        assert all(p.dtype == torch.float32 for p in module.parameters())
        curves.append([facts["loss"] for facts in logs.values()])
    assert curves[0] != curves[1]
    assert curves[0] == pytest.approx(curves[1], rel=0.05)


def test_checkpointing_is_asked_for_and_changes_no_gradient(make_method: Callable[..., Method]) -> None:
    own = load_backbone(BackboneConfig(path="bundled:tiny", random_seed=0, resolution=32))
    for kind in ("regularized", "hypernetwork"):
        method, results = make_method(offsets=kind), []
        for checkpointing in (False, True):
            module, logs = method.build(own, CLIP_DIMS), {}
            cfg = TrainConfig(steps=2, batch_size=2, base_lr=1e-3, gradient_checkpointing=checkpointing, log_every=1)
            train(method, module, own, Fixed([batch_of(own, 2)]), cfg, seed=0, on_log=logs.__setitem__)
            results.append([(f["loss"], f["grad_norm"]) for f in logs.values()])
        assert results[0][1] == pytest.approx(results[1][1], rel=1e-4)
        own.unet.disable_gradient_checkpointing()


def test_every_micro_batch_has_noise_of_its_own() -> None:
    seeds = [noise_seed(*key) for key in itertools.product(range(2), range(20), range(3), range(4))]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= s < 2**63 for s in seeds)
    assert noise_seed(7, 3, 1, 2) == 3669750133516863351, "old checkpoints would go on with other noise"


def test_every_call_gets_the_generator_of_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    original = Line.pretrain_loss

    def spy(self: Line, module: nn.Module, backbone: Any, batch: Mapping[str, Any], rng: torch.Generator) -> Losses:
        seen.append(rng.initial_seed())
        return original(self, module, backbone, batch, rng)

    monkeypatch.setattr(Line, "pretrain_loss", spy)
    fit(points(4, 2), steps=2, grad_accum=2, rank=3)
    assert seen == [noise_seed(0, step, micro, 3) for step in range(2) for micro in range(2)]


def test_pretraining_lowers_the_loss(backbone: Backbone, make_method: Callable[..., Method]) -> None:
    """On a few images and over a fixed set of noise, 25 steps help."""
    method, batch = make_method(), batch_of(backbone, 8)
    module = method.build(backbone, CLIP_DIMS)

    def loss() -> float:
        with torch.no_grad(), method.pretraining(module, backbone):
            terms = [method.pretrain_loss(module, backbone, batch, rng(100 + i)).terms for i in range(3)]
        return sum(float(t["diffusion"]) for t in terms) / 3

    before = loss()
    cfg = TrainConfig(steps=25, batch_size=8, base_lr=1e-3, scale_lr=False)
    train(method, module, backbone, Fixed([batch]), cfg, seed=0)
    assert loss() < 0.95 * before
