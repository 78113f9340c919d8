"""Attribute words by zero-shot classification with CLIP: the fine caption of the Taming Encoder's section 3.3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field, model_validator
from torch import Tensor

from e4t_core.backbones.clip import ClipModel
from e4t_core.config import Config
from e4t_core.errors import UsageError, nearest

Words = Annotated[str, Field(min_length=1)]


class Pair(Config):
    """An attribute that an image has or has not.

    Attributes:
        phrase: how captions say that it is there (``wearing eyeglasses``).
        present, absent: what CLIP compares the image with (``a person with eyeglasses``, ``a person without ...``).
    """

    phrase: Words
    present: Words
    absent: Words


class Option(Config):
    """One of several attributes that exclude each other: how captions say it, and what CLIP compares with."""

    phrase: Words
    prompt: Words


class AttributeList(Config):
    """The attributes of a domain. Names are those that datasets give as labels (CelebA's ``Wavy_Hair``).

    Attributes:
        pairs: name -> attribute that is there or not.
        groups: group -> name -> attribute; an image has one of each group at most.
        phrases: name -> phrase of further labels, which are not looked for in images.
        concepts: names whose phrase is a noun that can stand for the concept (``a woman``).
    """

    pairs: dict[str, Pair] = Field(default_factory=dict)
    groups: dict[str, Annotated[dict[str, Option], Field(min_length=2)]] = Field(default_factory=dict)
    phrases: dict[str, Words] = Field(default_factory=dict)
    concepts: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _known_concepts(self) -> AttributeList:
        for name in self.concepts:
            if name not in self.names():
                raise ValueError(f"concepts: the list has no '{name}'{nearest(name, self.names())}")
        return self

    def names(self) -> Mapping[str, str]:
        """Name -> phrase, in order, of everything in the list."""
        options = {name: option.phrase for group in self.groups.values() for name, option in group.items()}
        return {**{name: pair.phrase for name, pair in self.pairs.items()}, **options, **self.phrases}


class ZeroShot:
    """Finds the attributes of a list in images. The texts are embedded once, here.

    Args:
        clip: the judge.
        attributes: what to look for.
        threshold: an attribute of ``pairs`` is there if its share of the softmax over its pair is larger.
        min_margin: the best of a group counts if its share of the group's softmax exceeds the next one's by more.

    Raises:
        UsageError: the list has nothing to look for.
    """

    def __init__(self, clip: ClipModel, attributes: AttributeList, threshold: float, min_margin: float) -> None:
        self.clip, self.threshold, self.min_margin = clip, threshold, min_margin
        self._pairs = [pair.phrase for pair in attributes.pairs.values()]
        self._groups = [[option.phrase for option in group.values()] for group in attributes.groups.values()]
        texts = [text for pair in attributes.pairs.values() for text in (pair.present, pair.absent)]
        texts += [option.prompt for group in attributes.groups.values() for option in group.values()]
        if not texts:
            raise UsageError("this attribute list has neither pairs nor groups: nothing that images could be asked for")
        self._texts_NE = clip.embed_texts(texts)
        self._scale = float(clip.model.logit_scale.exp())

    @torch.no_grad()
    def __call__(self, images_B3HW: Tensor) -> list[list[str] | None]:
        """The phrases of each image in [-1, 1], in the list's order; None where the model gives no finite numbers."""
        logits_BN = self._scale * (self.clip.embed_images(images_B3HW) @ self._texts_NE.T)
        count = len(self._pairs)
        out = self._present(logits_BN[:, : 2 * count].unflatten(1, (count, 2)))
        sizes = [len(group) for group in self._groups]
        for group, logits_BG in zip(self._groups, logits_BN[:, 2 * count :].split(sizes, dim=1), strict=True):
            for phrases, choice in zip(out, self._chosen(logits_BG), strict=True):
                phrases += [] if choice is None else [group[choice]]
        finite = logits_BN.isfinite().all(dim=1).tolist()
        return [phrases if sound else None for phrases, sound in zip(out, finite, strict=True)]

    def _present(self, logits_BP2: Tensor) -> list[list[str]]:
        shares_BP = logits_BP2.softmax(-1)[..., 0]
        return [
            [phrase for phrase, share in zip(self._pairs, shares, strict=True) if share > self.threshold]
            for shares in shares_BP.tolist()
        ]

    def _chosen(self, logits_BG: Tensor) -> list[int | None]:
        best = logits_BG.softmax(-1).topk(2)
        margins = (best.values[:, 0] - best.values[:, 1]).tolist()
        indices = best.indices[:, 0].tolist()
        return [i if margin > self.min_margin else None for i, margin in zip(indices, margins, strict=True)]
