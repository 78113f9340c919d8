"""Zero-shot naming: which style, and which scene, does CLIP see in an image?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from e4t_core.backbones import ClipModel
from pipelines.sources.tiny_world import SCENE_WORDS, STYLE_WORDS, template

_SLICE = 128


def name_all(clip: ClipModel, images_B3HW: Tensor, class_words: Sequence[str]) -> tuple[list[str], list[str]]:
    """(styles, scenes) of images whose subjects are called ``class_words``."""
    embedded = torch.cat([clip.embed_images(part) for part in images_B3HW.split(_SLICE)])
    styles, scenes = [""] * len(embedded), [""] * len(embedded)
    for word in sorted(set(class_words)):
        rows = [i for i, found in enumerate(class_words) if found == word]
        for names, options, texts in (
            (styles, list(STYLE_WORDS), lambda s, w=word: [template(s, p).format(w) for p in SCENE_WORDS]),
            (scenes, list(SCENE_WORDS), lambda p, w=word: [template(s, p).format(w) for s in STYLE_WORDS]),
        ):
            best = (embedded[rows] @ _classifier(clip, options, texts).T).argmax(1).tolist()
            for row, found in zip(rows, best, strict=True):
                names[row] = options[found]
    return styles, scenes


def _classifier(clip: ClipModel, options: Sequence[str], texts: Callable[[str], list[str]]) -> Tensor:
    """(options, E): the mean direction of each option's texts (Radford et al. 2021, section 3.1.4)."""
    return torch.stack([F.normalize(clip.embed_texts(texts(option)).mean(0), dim=0) for option in options])
