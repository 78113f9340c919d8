"""The small stack's training: a miniature of it through the real command, and the arithmetic it rests on."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from e4t_core.backbones import BackboneConfig, ClipConfig, load_autoencoder, load_backbone, load_clip
from e4t_core.backbones.config import Models
from e4t_core.errors import UsageError, UserError
from e4t_core.metrics import METRICS
from e4t_core.storage import Store
from e4t_core.training import load_module
from jobs import __main__ as jobs_main
from jobs.__main__ import _module, main, parser
from jobs._job import Job
from jobs._recipe import load
from jobs._run_folder import RunFolder
from jobs._tiny_stack import evaluation, training
from jobs._tiny_stack.files import WEIGHTS, StackFolder
from jobs._tiny_stack.training import Stopped, Training
from tests.jobs.conftest import everything

SIZE = 32
MINIATURE = (
    "stack.pictures.domains={face: {identities: 12, class_words: [a person, a face]}}",
    f"stack.pictures.size={SIZE}",
    "stack.vae.steps=4",
    "stack.vae.batch_size=4",
    "stack.vae.model={block_out_channels: [8, 8, 8], norm_num_groups: 4}",
    "stack.clip.steps=4",
    "stack.clip.batch_size=6",
    f"stack.clip.model={{embed_dim: 16, vision_cfg: {{image_size: {SIZE}, layers: 2, width: 24, head_width: 12}},"
    " text_cfg: {width: 24, heads: 2, layers: 1}}",
    "stack.identity.steps=4",
    "stack.identity.batch_size=8",
    "stack.identity.channels=[4, 4, 8, 8]",
    "stack.identity.width=16",
    "stack.diffusion.steps=4",
    "stack.diffusion.batch_size=4",
    "stack.diffusion.model={block_out_channels: [16, 16, 16], norm_num_groups: 8, attention_head_dim: 2,"
    " cross_attention_dim: 32, sample_size: 8}",
    "stack.diffusion.text_model={hidden_size: 32, intermediate_size: 64, num_attention_heads: 2, num_hidden_layers: 1}",
    "stack.encoders={}",
    "stack.evaluation={identities: 4, images_per_identity: 8, pictures: 6, generated: 1, steps: 2}",
    "stack.run={threads: 1, processes: 1, log_every: 1}",
)
"""The whole recipe cut down to seconds."""
PARTS = ("vae", "clip", "identity", "diffusion")


def start(*words: str, sets: tuple[str, ...] = ()) -> dict[str, Any]:
    """Run the command in this process, errors raised; returns its summary."""
    over = [word for text in (*MINIATURE, *sets) for word in ("--set", text)]
    return jobs_main.start("train-tiny", [*over, *words])


@pytest.fixture(scope="session")
def summary(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A whole miniature run."""
    return start("--out", str(tmp_path_factory.mktemp("stack") / "run"))


@pytest.fixture(scope="session")
def out(summary: dict[str, Any]) -> Path:
    """Its folder."""
    return Path(summary["out"])


@pytest.fixture
def copy(out: Path, tmp_path: Path) -> Callable[..., Path]:
    """Folders of the run to begin another with: ``copy("pictures", "parts/vae")``."""

    def made(*folders: str) -> Path:
        for folder in folders:
            shutil.copytree(out / folder, tmp_path / "other" / folder)
        return tmp_path / "other"

    return made


def curve(folder: Path, part: str) -> list[dict[str, float]]:
    """The log lines without their times."""
    history = json.loads((folder / "parts" / part / "done.json").read_text())["history"]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in history]


def interrupt_at(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """SIGINT while the step with this number runs, in every part."""
    whole = Training.one_step

    def one_step(self: Training) -> float:
        if self.step == steps - 1:
            os.kill(os.getpid(), signal.SIGINT)
        return whole(self)

    monkeypatch.setattr(Training, "one_step", one_step)


# --- a whole run


def test_every_part_is_trained_and_measured(summary: dict[str, Any], out: Path) -> None:
    assert summary["trained"] == {name: {"step": 4, "steps": 4} for name in PARTS}
    figures = summary["figures"]
    assert {"identity_auc_photos", "identity_auc_across_styles", "clip_style", "clip_scene_face"} <= set(figures)
    assert {"generated_style", "generated_scene", "vae_l1", "vae_psnr_sketch"} <= set(figures)
    assert all(0 <= v <= 1 for k, v in figures.items() if not k.startswith("vae_psnr"))
    assert json.loads((out / "evaluation" / "figures.json").read_text())["figures"] == figures
    with Image.open(out / "evaluation" / "generated.png") as grid:
        assert grid.size == (20 * (SIZE + 2) - 2, SIZE)
    for part in PARTS:
        lines = curve(out, part)
        assert [line["step"] for line in lines] == [1, 2, 3, 4]
        assert all(np.isfinite(line["loss"]) for line in lines)


def test_the_stack_loads_as_any_other_model(out: Path) -> None:
    config = BackboneConfig(path=str(out / "stack" / "tiny"), resolution=SIZE)
    backbone = load_backbone(config)
    assert backbone.latent_shape == (8, SIZE // 4, SIZE // 4)
    assert backbone.encode_text(backbone.tokenize(["a photo of a face"])).shape == (1, 48, 32)
    clip = load_clip(ClipConfig(path=str(out / "stack" / "clip_tiny")))
    assert clip.embed_images(torch.zeros(2, 3, SIZE, SIZE)).shape == (2, 16)
    models = Models(backbone=config, clip=ClipConfig(path="bundled:clip_tiny", random_seed=0))
    cls = METRICS.get("identity")
    identity: Any = cls(cls.Config(path=str(out / "stack" / "identity_tiny" / "model.onnx")), models)
    identity.setup()
    assert identity.embed(torch.zeros(2, 3, SIZE, SIZE)).shape == (2, 16)


def test_latents_have_unit_deviation(out: Path) -> None:
    autoencoder = load_autoencoder(BackboneConfig(path=str(out / "stack" / "tiny"), resolution=SIZE))
    moments = torch.from_numpy(np.load(out / "latents" / "moments.npy")).float()
    assert moments.shape == (96, 16, SIZE // 4, SIZE // 4)
    assert float(autoencoder.to_latent(moments).std()) == pytest.approx(1.0, abs=0.05)
    pixels = torch.from_numpy(np.load(out / "pictures" / "pixels.npy")[:3]).permute(0, 3, 1, 2) / 127.5 - 1
    torch.testing.assert_close(autoencoder.to_moments(pixels)[:, :8], moments[:3, :8], atol=0.05, rtol=0.05)


def test_a_finished_run_is_left_alone(out: Path) -> None:
    before = everything(out)
    start("--out", str(out), "--only", "pictures,vae,clip,identity,diffusion", "--dry-run")
    assert everything(out) == before
    start("--out", str(out), "--only", "pictures")
    for part in PARTS:
        assert not (out / "parts" / part / "checkpoint.partial").exists()
    assert everything(out) == before


def test_an_interrupted_run_is_the_undisturbed_one(
    copy: Callable[..., Path], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = copy("pictures")
    with monkeypatch.context() as patched:
        interrupt_at(patched, 2)
        for part in PARTS:
            with pytest.raises(Stopped, match=f"{part} stopped at step 2"):
                start("--out", str(other), "--only", part)
            patched.undo()  # from here to its end without a signal
            start("--out", str(other), "--only", part, sets=("stack.evaluation.generated=1",))
            interrupt_at(patched, 2)
    for part in PARTS:
        assert curve(other, part) == curve(out, part)
    for network in WEIGHTS:
        assert StackFolder(other / "stack").hash(network) == StackFolder(out / "stack").hash(network)


@pytest.mark.full
def test_pictures_are_the_same_however_they_are_drawn(out: Path, tmp_path: Path) -> None:
    start("--out", str(tmp_path), "--only", "pictures", sets=("stack.run.processes=2",))
    for name in ("pixels.npy", "labels.parquet"):
        assert (tmp_path / "pictures" / name).read_bytes() == (out / "pictures" / name).read_bytes()


def test_pictures_go_on_where_they_were(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jobs._tiny_stack import pictures

    monkeypatch.setattr(pictures, "_CHUNK", 32)
    whole, drawn = pictures._draw_chunk, []

    def draw_chunk(folder: Path, chunk: range, plan: Any) -> int:
        drawn.append(chunk)
        if len(drawn) == 2:
            raise KeyboardInterrupt
        return whole(folder, chunk, plan)

    monkeypatch.setattr(pictures, "_draw_chunk", draw_chunk)
    with pytest.raises(KeyboardInterrupt):
        start("--out", str(tmp_path), "--only", "pictures")
    start("--out", str(tmp_path), "--only", "pictures")
    assert drawn == [range(0, 32), range(32, 64), range(32, 64), range(64, 96)]
    assert (tmp_path / "pictures" / "pixels.npy").read_bytes() == (out / "pictures" / "pixels.npy").read_bytes()


def test_what_is_measured_was_never_trained_on(out: Path) -> None:
    trained = pq.read_table(out / "pictures" / "labels.parquet")
    assert set(trained["split"].to_pylist()) == {"train"}
    job = Job(parser("train-tiny").parse_args([w for s in MINIATURE for w in ("--set", s)] + ["--out", str(out)]))
    work = _module("train-tiny")._work(job, job.recipe.stack, out)
    images, labels = evaluation.unseen(work, "face", 12, 8)
    assert len(labels) == 96
    unseen = {image.tobytes() for image in ((images + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()}
    seen = {image.tobytes() for image in np.load(out / "pictures" / "pixels.npy")}
    assert len(unseen) == len(seen) == 96
    assert not unseen & seen


# --- beginning from other weights, installing


def test_training_goes_on_from_earlier_weights(copy: Callable[..., Path], out: Path) -> None:
    other = copy("pictures")
    rate = tuple(f"stack.{part}.learning_rate=1.0e-12" for part in PARTS)
    start("--out", str(other), "--only", "diffusion,identity", "--init", str(out), sets=rate)
    stacks = StackFolder(out / "stack"), StackFolder(other / "stack")
    assert stacks[0].hash("vae") == stacks[1].hash("vae")  # taken as it is: latents stay what the UNet knows
    for network in ("unet", "text_encoder"):
        before, after = (stack.load(network) for stack in stacks)
        for name, value in before.items():
            torch.testing.assert_close(after[name], value, atol=2e-3, rtol=2e-3)
    assert not stacks[1].has("clip")


def test_a_stopped_run_can_be_installed(copy: Callable[..., Path], tmp_path: Path) -> None:
    other, package = copy("pictures", "stack", "parts"), tmp_path / "package"
    steps = {part: 3 if part == "clip" else 4 for part in PARTS}
    (other / "parts" / "clip" / "done.json").unlink()
    state = torch.load(other / "parts" / "clip" / training.CHECKPOINT, weights_only=True)
    torch.save({**state, "step": 3}, other / "parts" / "clip" / training.CHECKPOINT)
    facts = start("--out", str(other), "--install", str(package))
    assert facts["installed"] == list(PARTS)
    told = ("README.md", "training.json")
    assert facts["bytes"] == sum(p.stat().st_size for p in package.rglob("*") if p.is_file() and p.name not in told)
    text = (package / "tiny" / "README.md").read_text()
    assert "| clip | 3 of 4 (stopped early)" in text
    assert all(f"| {part} | {n}" in text for part, n in steps.items())
    assert all(f"`{figure}`" in text for figure in ("clip_style", "generated_scene", "vae_l1"))
    load_backbone(BackboneConfig(path=str(package / "tiny"), resolution=SIZE))


def test_the_card_has_the_figures_of_its_weights(summary: dict[str, Any], out: Path, tmp_path: Path) -> None:
    start("--out", str(out), "--install", str(tmp_path))
    text = (tmp_path / "tiny" / "README.md").read_text()
    for name, value in summary["figures"].items():
        assert f"| `{name}` | {value} |" in text
    assert "python -m jobs train-tiny" in text
    assert str(out) not in text


def test_parts_of_several_runs_make_one_card(copy: Callable[..., Path], out: Path, tmp_path: Path) -> None:
    package = tmp_path / "package"
    start("--out", str(out), "--install", str(package))
    other = copy("pictures")
    start("--out", str(other), "--init", str(package), "--only", "identity")
    start("--out", str(other), "--install", str(package))
    record = json.loads((package / "tiny" / "training.json").read_text())
    assert set(record) == set(PARTS)
    first = StackFolder(out / "stack").hash("identity")
    assert record["identity"]["begun_from"] == {"identity": first}
    assert record["vae"]["begun_from"] == {}
    text = (package / "tiny" / "README.md").read_text()
    assert f"| {first} |" in text
    assert "`identity_auc_photos`" in text  # of the weights that are there now
    assert "`clip_style`" in text
    (package / "tiny" / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"others")
    assert set(StackFolder(package).record()) == set(PARTS) - {"vae"}


SMALL_RECIPE = f"""
extends: e4t_face_tiny
name: small
source: {{identities: 2, images_per_identity: 2, image_size: {SIZE}}}
stages: {{ingest: {{size: {SIZE}}}}}
backbone: {{resolution: {SIZE}}}
train: {{steps: 2, batch_size: 2}}
"""


def test_encoders_are_trained_on_the_stack_and_shipped_beside_it(copy: Callable[..., Path], tmp_path: Path) -> None:
    other, package = copy("pictures", "stack", "parts"), tmp_path / "package"
    (tmp_path / "small.yaml").write_text(SMALL_RECIPE)
    encoders = (f"stack.encoders={{e4t_small: {tmp_path / 'small.yaml'}}}",)
    start("--out", str(other), "--only", "encoders", sets=encoders)
    with pytest.raises(UserError, match=r"encoders would take .* MB, over stack\.encoders_max_megabytes = 0\.01"):
        start("--out", str(other), "--install", str(package), sets=(*encoders, "stack.encoders_max_megabytes=0.01"))
    assert not package.exists()
    assert start("--out", str(other), "--install", str(package), sets=encoders)["installed"] == [*PARTS, "e4t_small"]
    recipe = load(str(tmp_path / "small.yaml"), [f"backbone.path={package / 'tiny'}"])
    run = RunFolder(Store(str(package / "e4t_small")))
    dims = load_clip(ClipConfig(path=str(package / "clip_tiny"), every=2)).dims
    record = load_module(
        run.store, "module.safetensors", recipe.build_method().build(load_backbone(recipe.backbone), dims)
    )
    assert record.recipe["backbone"]["path"] == "bundled:tiny"
    assert str(tmp_path) not in json.dumps(record.inputs)
    assert run.trained().facts["steps"] == 2
    assert "| `e4t_small` |" in (package / "tiny" / "README.md").read_text()


def test_a_stack_that_is_too_large_is_refused(out: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"MB, over stack\.max_megabytes = 0\.1"):
        start("--out", str(out), "--install", str(tmp_path / "x"), sets=("stack.max_megabytes=0.1",))
    assert not (tmp_path / "x").exists()


def test_evaluation_takes_the_packages_stack_where_there_is_no_other(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "bundled", lambda: StackFolder(tmp_path / "none"))
    with pytest.raises(UsageError, match="neither --out nor the package has trained weights"):
        start("--out", str(tmp_path / "new"), "--evaluate")
    monkeypatch.setattr(evaluation, "bundled", lambda: StackFolder(out / "stack"))
    found = start("--out", str(tmp_path / "new"), "--evaluate")
    assert found["stack"] == str(out / "stack")
    assert found["figures"]["clip_style"] >= 0


def test_what_ships_does_what_its_card_says(tmp_path: Path) -> None:
    """The acceptance bounds, on a small sample of the test split."""
    small = ("identities=30", "images_per_identity=8", "pictures=60", "generated=80")
    words = [word for text in small for word in ("--set", f"stack.evaluation.{text}")]
    figures = jobs_main.start("train-tiny", [*words, "--out", str(tmp_path), "--evaluate"])["figures"]
    assert figures["identity_auc_photos"] >= 0.99
    assert figures["identity_auc_across_styles"] >= 0.93
    assert figures["clip_style"] >= 0.95
    assert figures["clip_scene"] >= 0.95
    assert figures["generated_style"] >= 0.9
    assert figures["generated_scene"] >= 0.9


# --- refusals


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("stack.vae.steps=9", r"the finished vae is of another recipe: stack\.vae\.steps is 4 there and 9 here"),
        ("seed=5", r"seed is 0 there and 5 here"),
        ("stack.pictures.domains.face.share=0.5", r"domains\.face\.share is 1\.0 there and 0\.5 here"),
        ("stack.pictures.seed=3", r"the pictures in .* are of another recipe: seed is 0 there and 3 here"),
    ],
)
def test_another_recipe_is_not_mixed_in(out: Path, assignment: str, message: str) -> None:
    before = everything(out)
    with pytest.raises(UsageError, match=message):
        start("--out", str(out), "--only", "vae", sets=(assignment,))
    assert everything(out) == before


def test_a_changed_recipe_cannot_go_on_from_a_checkpoint(copy: Callable[..., Path]) -> None:
    other = copy("pictures", "parts/vae")
    (other / "parts" / "vae" / "done.json").unlink()
    with pytest.raises(UsageError, match=r"checkpoint .* is of another recipe: stack\.vae\.kl .*give another --out"):
        start("--out", str(other), "--only", "vae", sets=("stack.vae.kl=0.5",))


def test_a_damaged_checkpoint_says_so(copy: Callable[..., Path]) -> None:
    other = copy("pictures", "parts/clip")
    (other / "parts" / "clip" / "done.json").unlink()
    path = other / "parts" / "clip" / training.CHECKPOINT
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="is no whole checkpoint"):
        start("--out", str(other), "--only", "clip")


def test_diffusion_needs_an_autoencoder(copy: Callable[..., Path]) -> None:
    with pytest.raises(UsageError, match="the diffusion model: part `vae` must be finished"):
        start("--out", str(copy("pictures")), "--only", "diffusion")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--set", "stack.diffusion.step=3"), "unknown key 'step'; did you mean 'steps'"),
        (("--set", "stack.pictures.domains.face.identites=3"), "unknown key 'identites'; did you mean 'identities'"),
        (("--set", "stack.vae.model={block_out_chanels: [8]}"), "did you mean 'block_out_channels'"),
        (("--set", "stack.pictures.domains.fase={identities: 1}"), "no domain is called 'fase'"),
        (("--set", "stack.identity.domain=fase"), "no pictures of 'fase'; did you mean 'face'"),
        (("--only", "vea"), "no part is called 'vea'; did you mean 'vae'"),
        (("--init", "nowhere"), "no trained weights there"),
        (("--recipe", "tiny"), "recipe 'tiny' has no section 'stack'"),
        (("--out", "s3://bucket/x"), "works in a local folder"),
    ],
)
def test_wrong_usage(words: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    face = ("--set", "stack.pictures.domains={face: {identities: 1}}", "--set", "stack.run.processes=1")
    sets = () if "--recipe" in words else face
    assert main(["train-tiny", "--out", str(tmp_path / "x"), *sets, *words]) == 2
    assert message in capsys.readouterr().err


def test_the_plan_writes_nothing(tmp_path: Path) -> None:
    plan = start("--out", str(tmp_path / "x"), "--dry-run", "--only", "vae,diffusion")
    assert plan["pictures"] == {"face": 96}
    assert list(plan["parts"]) == ["vae", "diffusion"]
    assert plan["parts"]["vae"] == {"steps": 4, "done": 0, "finished": False, "samples": 16}
    assert not (tmp_path / "x").exists()


# --- the arithmetic


def test_auc() -> None:
    from jobs._tiny_stack.figures import roc_auc, verification_auc

    assert roc_auc(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1.0
    assert roc_auc(np.array([0.0]), np.array([1.0, 2.0])) == 0.0
    assert roc_auc(np.ones(3), np.ones(5)) == 0.5
    right, wrong = np.array([0.1, 0.4, 0.35, 0.8]), np.array([0.1, 0.3, 0.5])
    by_hand = np.mean([(r > w) + 0.5 * (r == w) for r in right for w in wrong])
    assert roc_auc(right, wrong) == pytest.approx(by_hand)
    assert np.isnan(roc_auc(np.array([]), wrong))
    # two people, two styles: the same direction for a person within a style only
    embeddings = np.eye(4)[[0, 1, 2, 3, 0, 1, 2, 3]]
    who, styles = [0, 1, 0, 1, 0, 1, 0, 1], ["photo"] * 2 + ["sketch"] * 2 + ["photo"] * 2 + ["sketch"] * 2
    assert verification_auc(embeddings, who, styles, across=False) == 1.0
    assert verification_auc(embeddings, who, styles, across=True) == 0.5


def test_psnr() -> None:
    from jobs._tiny_stack.figures import psnr

    assert psnr(np.zeros(4), np.full(4, 0.1)) == pytest.approx(20.0)
    assert psnr(np.ones(4), np.ones(4)) == float("inf")


def test_margin_loss_without_margin_is_cross_entropy() -> None:
    from jobs._tiny_stack.identity import margin_loss, pair_loss

    rng = torch.Generator().manual_seed(0)
    cosines, who = torch.rand(6, 9, generator=rng) * 1.8 - 0.9, torch.tensor([0, 3, 3, 8, 1, 5])
    right = F.one_hot(who, 9).bool()
    torch.testing.assert_close(margin_loss(cosines, right, 0.0, 16.0), F.cross_entropy(16 * cosines, who))
    assert margin_loss(cosines, right, 0.3, 16.0) > margin_loss(cosines, right, 0.0, 16.0)
    apart = torch.eye(4)[[0, 0, 1, 1]]
    assert pair_loss(apart, torch.tensor([0, 0, 1, 1]), 0.3, 24.0) < 1e-3
    assert pair_loss(apart, torch.tensor([0, 1, 0, 1]), 0.3, 24.0) > 10


def test_contrastive_loss_with_one_right_text_each_is_clips() -> None:
    from jobs._tiny_stack.clip import contrastive_loss

    logits = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    target = torch.arange(5)
    clips = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    torch.testing.assert_close(contrastive_loss(logits, torch.eye(5).bool()), clips)
    # two equal texts, both right for both images: the best is to share
    both = torch.ones(2, 2).bool()
    assert contrastive_loss(torch.zeros(2, 2), both) == pytest.approx(np.log(2))


def test_snr_weights_are_the_papers() -> None:
    from diffusers import DDPMScheduler
    from diffusers.training_utils import compute_snr

    from e4t_core.backbones.base import NoiseSchedule
    from jobs._tiny_stack.diffusion import snr_weights

    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    snr = compute_snr(scheduler, torch.arange(1000))
    bounded = torch.minimum(snr, torch.full_like(snr, 5.0))
    eps = NoiseSchedule(scheduler.alphas_cumprod, "epsilon")
    torch.testing.assert_close(snr_weights(eps, 5.0), bounded / snr)
    v = NoiseSchedule(scheduler.alphas_cumprod, "v_prediction")
    torch.testing.assert_close(snr_weights(v, 5.0), (bounded + 1) / (snr + 1))
    assert snr_weights(v, 5.0)[-1] > 0.99  # min-SNR's own weight would be 0.005 here


def test_noise_hides_colours_so_that_text_must_tell_them() -> None:
    """A picture's mean colour averages the noise away: with SD1.5's levels a latent as small as this keeps it readable
    at the last one, so the UNet copies it out of the noise and learns no colour words."""
    from e4t_core.backbones import BackboneConfig, load_backbone

    backbone = load_backbone(BackboneConfig(path="bundled:tiny", resolution=64))
    _, h, w = backbone.latent_shape
    abar = backbone.schedule.alphas_cumprod[-1]
    assert h * w * abar / (1 - abar) < 0.1
    assert backbone.schedule.prediction_type == "v_prediction"


def test_edge_loss_sees_lines_and_no_flat_shifts() -> None:
    from jobs._tiny_stack.vae import edge_loss

    flat, line = torch.full((1, 3, 16, 16), 0.5), torch.zeros(1, 3, 16, 16)
    line[..., 8] = 8.0  # the same mean
    assert edge_loss(flat) == 0
    assert edge_loss(line) > line.abs().mean()


def test_the_onnx_graph_is_the_network() -> None:
    from jobs._tiny_stack.identity_net import IdentityNet
    from jobs._tiny_stack.identity_onnx import from_onnx, to_onnx

    torch.manual_seed(0)
    net, other = (IdentityNet((4, 6, 8, 8), 16, 64) for _ in range(2))
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -1, 1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 2)
    images = torch.rand(5, 3, 64, 64) * 2 - 1
    model = to_onnx(net.eval(), {"trained_on": "nothing"})
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == ["image"]
    assert [o.name for o in session.get_outputs()] == ["embedding"]
    assert session.get_inputs()[0].shape == ["N", 3, 64, 64]
    with torch.no_grad():
        found = session.run(None, {"image": images.numpy()})[0]
        torch.testing.assert_close(torch.from_numpy(found), net(images), atol=1e-4, rtol=1e-4)
        from_onnx(other, onnx.load_from_string(model.SerializeToString()))
        torch.testing.assert_close(other.eval()(images), net(images), atol=1e-4, rtol=1e-4)


def test_the_identity_network_that_ships_stays_small() -> None:
    from jobs._recipe import load
    from jobs._tiny_stack.identity_net import IdentityNet
    from jobs._tiny_stack.identity_onnx import to_onnx

    config = load("tiny_stack").stack.identity  # type: ignore[union-attr]
    assert len(to_onnx(IdentityNet(config.channels, config.width, 64).eval(), {}).SerializeToString()) < 4_000_000


def test_texts_claim_what_they_say() -> None:
    from jobs._tiny_stack.clip import rightness
    from jobs._tiny_stack.config import TextMix
    from jobs._tiny_stack.words import Label, claims, draw_text, phrase_of

    caption = "a pencil sketch of a person with red hair on the beach, green eyes, calm"
    assert phrase_of(caption, "a pencil sketch of {} on the beach") == "a person with red hair"
    assert phrase_of("a photo of an orange mug, tall", "a photo of {}") == "an orange mug"
    words = ("red hair", "green eyes", "calm")
    label = Label("face", 0, "sketch", "beach", caption, "a person with red hair", words, ("a person", "a face"))
    rng = np.random.default_rng(0)
    drawn = {kind: draw_text(label, TextMix(**{kind: 1.0}), rng) for kind in TextMix.model_fields}
    assert drawn["caption"].text == caption
    assert drawn["phrase"].text == "a pencil sketch of a person with red hair on the beach"
    assert drawn["sentence"].text in {f"a pencil sketch of a {w} on the beach" for w in ("person", "face")}
    assert sorted(drawn["attributes"].text.split(", ")) == sorted(words)
    assert (drawn["style"].text, drawn["scene"].text) == ("a pencil sketch", "the beach")
    assert drawn["place"].text == "a pencil sketch of the beach"
    assert drawn["empty"].text == ""
    assert all(text.claims <= claims(label) for text in drawn.values())
    other = Label("face", 1, "photo", "beach", "", "a person", ("green eyes",), ("a person", "a face"))
    right = rightness([claims(label), claims(other)], [drawn["scene"], drawn["style"], drawn["phrase"]])
    assert right.tolist() == [[True, True, True], [True, False, False]]
