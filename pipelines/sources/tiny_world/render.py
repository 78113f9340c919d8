"""One picture of the tiny world: ``(domain, identity, style, scene, pose)`` -> pixels, mask, caption, labels."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from e4t_core.errors import UsageError, nearest
from pipelines.sources.tiny_world.domains import DOMAINS, AnyDomain
from pipelines.sources.tiny_world.draws import Draws
from pipelines.sources.tiny_world.scenes import SCENES, paint
from pipelines.sources.tiny_world.styles import STYLES, SUPERSAMPLING, Layers

VERSION = 2
"""Raised when any picture or caption changes."""

STYLE_WORDS = {"photo": "a photo of {}", "sketch": "a pencil sketch of {}",
    "painting": "an oil painting of {}", "pixel_art": "pixel art of {}"}  # fmt: skip
SCENE_WORDS = {"plain": "", "beach": "on the beach", "snow": "in the snow", "forest": "in the forest",
    "night": "in the city at night"}  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """What :func:`render` makes.

    Attributes:
        rgb: (H, W, 3) uint8.
        mask: (H, W) uint8, the share of each pixel that the subject covers: 255 is all of it.
        caption: a sentence and attribute words; ``template``: the sentence with ``{}`` for the concept.
        attributes: words for the identity and its expression.
    """

    rgb: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    caption: str
    template: str
    attributes: tuple[str, ...]

    def png(self) -> bytes:
        """The picture as a file."""
        return _png(self.rgb)

    def mask_png(self) -> bytes:
        """The mask as a file."""
        return _png(self.mask)


def template(style: str, scene: str) -> str:
    """``a pencil sketch of {} on the beach``."""
    return f"{STYLE_WORDS[style]} {SCENE_WORDS[scene]}".strip()


def render(
    domain: str,
    identity: int,
    style: str,
    scene: str,
    pose: int,
    *,
    split: str = "train",
    seed: int = 0,
    size: int = 64,
) -> Picture:
    """Draw one picture; the same arguments give the same pixels in every process.

    Args:
        identity: number of the concept in its split; numbers are unlimited.
        pose: number of the picture: everything but identity, style and scene (pose, expression, clothes, light).
        split: identities of different splits have nothing in common.
        size: pixels of the square picture.

    Raises:
        UsageError: no such domain, style or scene.
    """
    for kind, name, known in (("style", style, STYLES), ("scene", scene, SCENES)):
        if name not in known:
            raise UsageError(f"no {kind} is called '{name}'{nearest(name, known)}")
    world, ink, side = _domain(domain), STYLES[style].ink, size * SUPERSAMPLING
    who = (seed, domain, split, identity)
    traits = world.traits_of(world.class_of(identity), Draws(*who, "traits"))
    subject = world.draw(traits, Draws(*who, pose, "pose"), side, ink)
    place = _shadowed(paint(scene, Draws(*who, pose, "scene", scene), side, ink).convert("RGB"), subject.cast)
    rgb, mask = STYLES[style].finish(Layers(place, subject.layer, subject.shade), size, Draws(*who, pose, "style"))
    sentence = template(style, scene)
    further = [word for word in subject.words if word not in subject.phrase]
    caption = ", ".join((sentence.format(subject.phrase), *further))
    return Picture(rgb, mask, caption, sentence, subject.words)


def _shadowed(place: Image.Image, cast: Image.Image | None) -> Image.Image:
    if cast is None:
        return place
    large = cast.resize(place.size, Image.Resampling.BILINEAR)
    return ImageChops.multiply(place, Image.merge("RGB", (large, large, large)))


@lru_cache(maxsize=8)
def _domain(name: str) -> AnyDomain:
    return DOMAINS.get(name)()


def _png(pixels: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
