"""Recipe sections of the segmenters, one for each kind."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from e4t_core.backbones.image_input import Scale, Side
from e4t_core.config import Config

Text = Annotated[str, Field(min_length=1)]


class ClipSegConfig(Config):
    """CLIPSeg (Lüddecke & Ecker 2022): the foreground is what a text says.

    Attributes:
        path: a transformers model folder with its tokenizer: hub id, local folder, URI or ``bundled:NAME``.
        prompts: what is foreground (``a cat``); of several, each pixel takes the likeliest.
    """

    path: str
    prompts: Annotated[tuple[Text, ...], Field(min_length=1)]


class SegformerConfig(Config):
    """SegFormer (Xie et al. 2021): the foreground is some of the classes that the model was trained on.

    Attributes:
        path: a transformers model folder: hub id, local folder, URI or ``bundled:NAME``.
        labels: classes that are foreground: their names in the model's ``id2label``, or their numbers.
    """

    path: str
    labels: Annotated[tuple[Text | Annotated[int, Field(ge=0)], ...], Field(min_length=1)]


class SaliencyConfig(Config):
    """A salient-object network as an ONNX file; the foreground is what stands out. Defaults are U-2-Net's.

    Attributes:
        path: the folder that holds the file: hub id, local folder, URI or ``bundled:NAME``.
        file: the file's name in it (``u2net.onnx``, ``onnx/model.onnx``).
        size: (height, width) of the input, for models that do not declare it; by default 320 x 320.
        mean, std: input = (pixel - mean) / std, pixels RGB from 0 to 1. (U-2-Net's own loader scales by the image's
            largest value instead of 255, which differs for dark images only.)
        output: name or number of the output that is the map.
        normalization: what turns the output into probabilities: ``minmax`` stretches each image's map from 0 to 1
            (U-2-Net, IS-Net), ``sigmoid`` is for logits (BiRefNet), ``none`` for probabilities.
    """

    path: str
    file: Text = "model.onnx"
    size: tuple[Side, Side] | None = None
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[Scale, Scale, Scale] = (0.229, 0.224, 0.225)
    output: int | str = 0
    normalization: Literal["minmax", "sigmoid", "none"] = "minmax"


SegmenterConfig = ClipSegConfig | SegformerConfig | SaliencyConfig
