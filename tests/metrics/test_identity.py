"""ID: any ONNX embedder is fed as it was trained, and refused with a reason if it is no embedder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor
from torch.nn import functional as F

from e4t_core.backbones.config import BackboneConfig, ClipConfig, Models
from e4t_core.config import validate
from e4t_core.errors import UsageError
from e4t_core.metrics import METRICS
from e4t_core.metrics.identity import IdentityConfig, IdentitySimilarity

MODELS = Models(
    backbone=BackboneConfig(path="bundled:tiny", random_seed=0, resolution=64),
    clip=ClipConfig(path="bundled:clip_tiny", random_seed=0),
)
NCHW, NHWC = ["N", 3, 8, 8], ["N", 8, 8, 3]
Shape = list[Any]


def mean_colour(path: Path, shape: Shape = NCHW, kind: int = TensorProto.FLOAT, keep: bool = False) -> str:
    """An embedder whose three numbers are the mean of each channel of its input: shows what it was fed."""
    axes = [1, 2] if shape[-1] == 3 else [2, 3]
    node = helper.make_node("ReduceMean", ["image"], ["embedding"], axes=axes, keepdims=int(keep))
    out: Shape = [None] * 4 if keep else ["N", 3]
    return saved(path, [node], [("image", kind, shape)], [("embedding", kind, out)])


def saved(path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any]) -> str:
    sides = [[helper.make_tensor_value_info(*value) for value in side] for side in (inputs, outputs)]
    graph = helper.make_graph(nodes, "test", *sides)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return str(path)


def metric(path: str, **config: Any) -> IdentitySimilarity:
    made = IdentitySimilarity(IdentityConfig(path=path, **config), MODELS)
    made.setup()
    return made


def flat(*colours: tuple[float, float, float]) -> Tensor:
    """(B, 3, 16, 16) images of one colour each, from 0-255 values."""
    return torch.tensor(colours).view(-1, 3, 1, 1).expand(-1, -1, 16, 16) / 127.5 - 1


def photos(count: int, seed: int = 0, side: int = 64) -> Tensor:
    coarse = torch.rand((count, 3, 8, 8), generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return F.interpolate(coarse, (side, side), mode="bicubic").clamp(-1, 1)


# --- what it computes


def test_it_is_found_by_its_name() -> None:
    assert METRICS.get("identity") is IdentitySimilarity
    assert IdentitySimilarity.title == "ID"


def test_scores_are_mean_cosines_to_the_references() -> None:
    tiny = metric("bundled:identity_tiny")
    generated, references = photos(5, seed=1), photos(3, seed=2)
    scores = tiny(generated, references, ["a photo"] * 5)
    g, r = (tiny.model(x.clone()).numpy() for x in (generated, references))
    want = [np.mean([gi @ rj / np.linalg.norm(gi) / np.linalg.norm(rj) for rj in r]) for gi in g]
    assert scores.shape == (5,)
    np.testing.assert_allclose(scores.numpy(), want, atol=1e-5)


def test_a_person_resembles_themselves_most() -> None:
    tiny = metric("bundled:identity_tiny")
    images = photos(6)
    for i in range(6):
        scores = tiny(images, images[i : i + 1], [""] * 6)
        assert scores.argmax() == i
        assert scores[i] == pytest.approx(1.0, abs=1e-5)


def test_batches_do_not_change_scores() -> None:
    images, references = photos(7, seed=1), photos(2, seed=2)
    one, all_ = (metric("bundled:identity_tiny", batch_size=b)(images, references, [""] * 7) for b in (1, 32))
    torch.testing.assert_close(one, all_, atol=1e-5, rtol=0)


# --- how the model is fed


@pytest.mark.parametrize(
    ("config", "want"),
    [
        ({}, [(200 - 127.5) / 127.5, (100 - 127.5) / 127.5, (50 - 127.5) / 127.5]),
        ({"channels": "bgr"}, [(50 - 127.5) / 127.5, (100 - 127.5) / 127.5, (200 - 127.5) / 127.5]),
        ({"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}, [200, 100, 50]),
        ({"channels": "bgr", "mean": (50.0, 0.0, 0.0), "std": (1.0, 2.0, 4.0)}, [0, 50, 50]),
    ],
)
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_pixels_are_scaled_and_ordered_as_configured(
    config: dict[str, Any], want: list[float], layout: str, tmp_path: Path
) -> None:
    path = mean_colour(tmp_path / "m.onnx", NCHW if layout == "nchw" else NHWC)
    made = metric(path, layout=layout, **config)
    fed = made.model(flat((200, 100, 50))[..., :8, :8])
    np.testing.assert_allclose(fed.numpy(), [want], atol=1e-3)


def test_images_are_scaled_to_the_size_the_model_declares(tmp_path: Path) -> None:
    made = metric(mean_colour(tmp_path / "m.onnx", ["N", 3, 4, 12]))
    assert made.size == (4, 12)
    assert made(photos(2, side=50), photos(1, side=30), ["", ""]).isfinite().all()


def test_a_model_of_any_size_takes_the_configured_one(tmp_path: Path) -> None:
    path = mean_colour(tmp_path / "m.onnx", ["N", 3, "H", "W"])
    assert metric(path, size=(5, 6)).size == (5, 6)
    with pytest.raises(UsageError, match=r"takes any size: say the one"):
        metric(path)


def test_a_model_for_one_image_and_half_precision_work(tmp_path: Path) -> None:
    plain = mean_colour(tmp_path / "a.onnx")
    single = mean_colour(tmp_path / "b.onnx", [1, 3, 8, 8], TensorProto.FLOAT16)
    images, references = photos(3, seed=1), photos(2, seed=2)
    scores = [metric(path)(images, references, [""] * 3) for path in (plain, single)]
    torch.testing.assert_close(scores[0], scores[1], atol=5e-3, rtol=0)


# --- faces


def only_bright(images_B3HW: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Finds a "face" in images that are lighter than grey, in their top left corner."""
    return images_B3HW[..., : size[0], : size[1]], images_B3HW.mean((1, 2, 3)) > 0


def test_images_without_a_face_are_nan_and_references_without_one_are_left_out(tmp_path: Path) -> None:
    made = metric(mean_colour(tmp_path / "m.onnx"))
    made.detector = only_bright
    bright, dark, green = (255, 250, 240), (10, 0, 0), (128, 255, 128)
    scores = made(flat(bright, dark), flat(dark, green, bright), ["", ""])
    alone = made(flat(bright), flat(green, bright), [""])
    assert scores[0] == pytest.approx(alone[0].item())
    assert scores[1].isnan()
    assert made(flat(bright), flat(dark), [""]).isnan().all(), "no reference has a face: nothing can be said"


def test_the_detector_chooses_what_is_seen(tmp_path: Path) -> None:
    made = metric(mean_colour(tmp_path / "m.onnx"))
    image = flat((255, 255, 200)).clone()
    image[:, 0, 8:] = 0.1
    whole = made.embed(image)
    made.detector = only_bright
    torch.testing.assert_close(made.embed(image), made.embed(flat((255, 255, 200))), atol=1e-4, rtol=0)
    assert (made.embed(image) - whole).abs().max() > 0.1


# --- what is refused


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no ONNX file at '.*nothing\.onnx'"):
        metric(str(tmp_path / "nothing.onnx"))


def test_a_misspelt_bundled_name_gets_the_right_one() -> None:
    with pytest.raises(UsageError, match=r"did you mean 'identity_tiny'"):
        metric("bundled:identity_tinny")


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"not a model" * 100)
    with pytest.raises(UsageError, match="no ONNX model that onnxruntime"):
        metric(str(tmp_path / "m.onnx"))


@pytest.mark.parametrize(
    ("shape", "config", "message"),
    [
        (["N", 8, 8], {}, r"layout 'nchw' needs \(batch, 3, height, width\)"),
        (["N", 1, 8, 8], {}, r"layout 'nchw' needs"),
        (NHWC, {}, r"layout 'nchw' needs"),
        (NCHW, {"layout": "nhwc"}, r"layout 'nhwc' needs \(batch, height, width, 3\)"),
        ([16, 3, 8, 8], {}, r"exactly 16 images at once"),
        (NCHW, {"size": (112, 112)}, r"size is \(112, 112\), but .* takes \(8, 8\)"),
    ],
)
def test_a_model_of_another_interface_is_refused(
    shape: Shape, config: dict[str, Any], message: str, tmp_path: Path
) -> None:
    node = helper.make_node("Flatten", ["image"], ["embedding"], axis=1)
    path = saved(
        tmp_path / "m.onnx",
        [node],
        [("image", TensorProto.FLOAT, shape)],
        [("embedding", TensorProto.FLOAT, [None, None])],
    )
    with pytest.raises(UsageError, match=message):
        metric(path, **config)


def test_integer_inputs_and_second_inputs_are_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["image"], ["embedding"])]
    image, second = ("image", TensorProto.UINT8, NCHW), ("mask", TensorProto.FLOAT, NCHW)
    with pytest.raises(UsageError, match=r"takes tensor\(uint8\)"):
        metric(saved(tmp_path / "a.onnx", nodes, [image], [("embedding", TensorProto.UINT8, NCHW)]))
    nodes = [helper.make_node("Add", ["image", "mask"], ["embedding"])]
    image = ("image", TensorProto.FLOAT, NCHW)
    with pytest.raises(UsageError, match=r"takes 2 inputs \(image, mask\)"):
        metric(saved(tmp_path / "b.onnx", nodes, [image, second], [("embedding", TensorProto.FLOAT, NCHW)]))


def test_an_output_that_is_no_vector_per_image_is_refused(tmp_path: Path) -> None:
    made = metric(mean_colour(tmp_path / "m.onnx", keep=True))
    with pytest.raises(UsageError, match=r"gives \(2, 3, 1, 1\) for 2 images"):
        made(photos(2), photos(1), ["", ""])


def test_a_device_that_is_not_there_is_named() -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(UsageError, match=r"device 'cuda:0'.*onnxruntime-gpu"):
        metric("bundled:identity_tiny", device="cuda:0")


def test_a_scale_of_zero_is_refused() -> None:
    with pytest.raises(UsageError, match=r"std"):
        validate(IdentityConfig, {"path": "x", "std": [1, 0, 1]}, "metrics.identity")
