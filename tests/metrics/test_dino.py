"""DINO: the real class from its real format, and features as transformers' own processor and model give them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import ViTImageProcessor, ViTModel

from e4t_core.backbones.dino import DinoConfig, dino_weights_fingerprint, load_dino
from e4t_core.errors import CheckpointMismatch, UserError
from e4t_core.images import encode_png
from e4t_core.metrics import METRICS
from tests.metrics.test_clip_metrics import MODELS, images
from tests.support.dino import SIDE, save_dino


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_dino(tmp_path_factory.mktemp("dino") / "dino")


def test_features_are_those_of_transformers(folder: Path) -> None:
    """Pixels of 8 bits, and the processor that the file describes."""
    import io

    one_3HW = images(1, 3)[0]
    with Image.open(io.BytesIO(encode_png(one_3HW))) as picture:
        picture = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    processor, model = ViTImageProcessor.from_pretrained(folder), ViTModel.from_pretrained(folder)
    with torch.no_grad():
        want = model(**processor(picture, return_tensors="pt")).last_hidden_state[0, 0]
    got = load_dino(DinoConfig(path=str(folder)))(one_3HW[None])[0]
    assert torch.nn.functional.cosine_similarity(got, want, dim=0) > 0.9995


def test_the_score_is_the_mean_cosine_to_every_reference(folder: Path) -> None:
    metric = METRICS.get("dino")(METRICS.get("dino").Config(path=str(folder)), MODELS)
    metric.setup()
    model = load_dino(DinoConfig(path=str(folder)))
    g, r = model(images(3, 1)), model(images(2, 2))
    want = torch.stack([torch.nn.functional.cosine_similarity(one[None], r).mean() for one in g])
    torch.testing.assert_close(metric(images(3, 1), images(2, 2), [""] * 3), want, atol=1e-5, rtol=0)  # type: ignore[operator]


def test_other_weights_have_another_fingerprint(folder: Path, tmp_path: Path) -> None:
    other = save_dino(tmp_path / "other", seed=1)
    assert dino_weights_fingerprint(DinoConfig(path=str(folder))) != dino_weights_fingerprint(
        DinoConfig(path=str(other))
    )


def test_what_is_no_dino_is_refused(folder: Path, tmp_path: Path) -> None:
    broken = save_dino(tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    tensors.pop(next(iter(tensors)))
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointMismatch, match="1 tensors of a ViTModel are missing"):
        load_dino(DinoConfig(path=str(broken)))
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**config, "model_type": "dinov2"}))
    with pytest.raises(UserError, match="describes a 'dinov2' model; it must be a 'vit' model"):
        load_dino(DinoConfig(path=str(broken)))
    with pytest.raises(UserError, match="there is no model folder"):
        dino_weights_fingerprint(DinoConfig(path=str(tmp_path / "none")))
