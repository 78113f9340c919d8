"""The tiny world as a source: a numbered population, drawn when it is read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from itertools import count, islice
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from e4t_core.errors import nearest
from pipelines.sources._listing import smaller
from pipelines.sources.base import RawSample, Source, SourceConfig, SourceItem
from pipelines.sources.tiny_world.domains import DOMAINS, AnyDomain
from pipelines.sources.tiny_world.draws import Draws
from pipelines.sources.tiny_world.render import VERSION, render

StyleName = Literal["photo", "sketch", "painting", "pixel_art"]
SceneName = Literal["plain", "beach", "snow", "forest", "night"]


class TinyWorldConfig(SourceConfig):
    """Who is in the world, and in which pictures.

    Attributes:
        domain: kind of concept (``face``, ``cat``, ``art``, ``object``), a file or folder of ``domains/``.
        classes: take only identities of these classes of the domain (``[mug, chair]``); all by default. A selection
            leaves every identity's name and pictures as they are, so a training set of some classes and a test set of
            the others have neither a class nor an identity in common.
        split: ``train``, ``val`` and ``test`` never share an identity, whatever the seed.
        identities: how many concepts, over all classes; raising it only adds some.
        images_per_identity: pictures of each; raising it only adds some.
        styles, scenes: what pictures are made as, and where. Each identity goes through all of them in an order of
            its own. ``styles: [photo]`` gives input photos for personalization.
        seed: of the whole world; another seed is another population.
        image_size: pixel side.
    """

    domain: str = "face"
    classes: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    split: Literal["train", "val", "test"] = "train"
    identities: Annotated[int, Field(ge=1)] = 64
    images_per_identity: Annotated[int, Field(ge=1)] = 4
    styles: Annotated[tuple[StyleName, ...], Field(min_length=1)] = ("photo", "sketch", "painting", "pixel_art")
    scenes: Annotated[tuple[SceneName, ...], Field(min_length=1)] = ("plain", "beach", "snow", "forest", "night")
    seed: Annotated[int, Field(ge=0)] = 0
    image_size: Annotated[int, Field(ge=32, multiple_of=8)] = 64

    @field_validator("domain")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in DOMAINS.names():
            raise ValueError(f"no domain is called '{value}'{nearest(value, DOMAINS.names())}")
        return value

    @field_validator("classes")
    @classmethod
    def _known_classes(cls, value: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        if value is not None and "domain" in info.data:
            known = DOMAINS.get(info.data["domain"]).classes
            for name in value:
                if name not in known:
                    raise ValueError(f"no class of {info.data['domain']} is called '{name}'{nearest(name, known)}")
        return value


class TinyWorld(Source):
    """Procedural pictures with exact masks, captions, identities, styles and scenes; needs no path."""

    name: ClassVar[str] = "tiny_world"
    Config: ClassVar[type[SourceConfig]] = TinyWorldConfig
    takes_path: ClassVar[bool] = False
    config: TinyWorldConfig

    def items(self, limit: int | None = None) -> Iterator[SourceItem]:
        return islice(self._all(), smaller(limit, self.config.limit))

    def read(self, item: SourceItem) -> RawSample:
        c = self.config
        identity, image = map(int, item.id.split("/")[-2:])
        style, scene = item.labels["style"], item.labels["scene"]
        picture = render(c.domain, identity, style, scene, image, split=c.split, seed=c.seed, size=c.image_size)
        return RawSample(
            image=picture.png(),
            mask=picture.mask_png(),
            caption=picture.caption,
            template=picture.template,
            labels={"attributes": list(picture.attributes)},
        )

    def _all(self) -> Iterator[SourceItem]:
        for identity in islice(self._numbers(), self.config.identities):
            styles, scenes = self._order(identity)
            cycle = math.lcm(len(styles), len(scenes))
            for image in range(self.config.images_per_identity):
                # after each full cycle one list moves on by one, so that every pair comes
                scene = scenes[(image + image // cycle) % len(scenes)]
                yield self._item(identity, image, styles[image % len(styles)], scene)

    def _numbers(self) -> Iterator[int]:
        """Numbers of the identities whose class is selected."""
        selected = self.config.classes or self._domain.classes
        return (identity for identity in count() if self._domain.class_of(identity) in selected)

    @cached_property
    def _domain(self) -> AnyDomain:
        return DOMAINS.get(self.config.domain)()

    def _order(self, identity: int) -> tuple[list[StyleName], list[SceneName]]:
        c = self.config
        draws = [Draws(c.seed, c.domain, c.split, identity, what) for what in ("styles", "scenes")]
        return draws[0].shuffled(c.styles), draws[1].shuffled(c.scenes)

    def _item(self, identity: int, image: int, style: str, scene: str) -> SourceItem:
        c = self.config
        name = f"{c.domain}/{c.split}/{identity:06d}/{image:03d}"
        labels: dict[str, Any] = {
            "identity": f"{c.domain}-{c.split}-{identity:06d}",
            "class": self._domain.class_of(identity),
            "style": style,
            "scene": scene,
            "split": c.split,
        }
        etag = f"{VERSION}:{c.seed}:{c.image_size}:{style}:{scene}"
        return SourceItem(id=name, uri=f"tiny_world:{name}", etag=etag, labels=labels)
