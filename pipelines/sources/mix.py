"""Several datasets as one: domain sets with a general set beside them (Taming Encoder 3.4's joint training)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from e4t_core.config import validate
from e4t_core.errors import DataError
from pipelines.sources import SOURCES
from pipelines.sources._listing import first_by_id
from pipelines.sources.base import PART, RawSample, Source, SourceConfig, SourceItem

Share = Annotated[float, Field(ge=0)]


class MixConfig(SourceConfig):
    """Which datasets, and how much of each a training batch has.

    ::

        source:
          name: mix
          parts:
            faces: {name: celeba_hq, path: s3://bucket/celeba-hq}
            general: {name: webdataset, path: s3://bucket/photos}
          shares: {faces: 0.7, general: 0.3}

    Attributes:
        parts: name -> a source's own section; its ``limit`` holds for that part.
        shares: part -> its share of what training draws, relative to the others'; every part has one, and 0 leaves it
            out. Shares change no shard.
    """

    parts: Annotated[dict[str, SerializeAsAny[SourceConfig]], Field(min_length=1)]
    shares: dict[str, Share]

    @field_validator("parts", mode="before")
    @classmethod
    def _each_by_its_own(cls, parts: Any) -> Any:
        if not isinstance(parts, Mapping):
            return parts
        return {name: _section(str(name), section) for name, section in parts.items()}

    @model_validator(mode="after")
    def _consistent(self) -> MixConfig:
        if self.path is not None:
            raise ValueError("a mix has no path of its own; give each part its path")
        for name in self.parts:
            if not name or "/" in name:
                raise ValueError(f"part '{name}': a name without '/' begins the ids of its samples")
        if set(self.shares) != set(self.parts):
            raise ValueError(
                f"shares name {', '.join(sorted(self.shares)) or 'no part'}; the parts are {', '.join(self.parts)}: "
                "give each its share"
            )
        if not sum(self.shares.values()):
            raise ValueError("shares are all 0: nothing could be drawn")
        return self


def _section(name: str, section: Any) -> SourceConfig:
    if isinstance(section, SourceConfig):
        return section
    kind = section.get("name") if isinstance(section, Mapping) else None
    if not isinstance(kind, str) or kind == Mix.name:
        others = ", ".join(n for n in SOURCES.names() if n != Mix.name)
        raise ValueError(f"part '{name}' needs a section with the name of its source: one of {others}")
    return validate(SOURCES.get(kind).Config, section, f"source.parts.{name}")


class Mix(Source):
    """The samples of every part, with the part's name before their ids and identities."""

    name: ClassVar[str] = "mix"
    Config: ClassVar[type[SourceConfig]] = MixConfig
    takes_path: ClassVar[bool] = False
    config: MixConfig

    def __init__(self, config: MixConfig) -> None:
        super().__init__(config)
        self._parts = {name: SOURCES.get(part.name)(part) for name, part in config.parts.items()}

    def items(self, limit: int | None = None) -> Iterator[SourceItem]:
        return first_by_id(self._items(), limit)

    def _items(self) -> Iterator[SourceItem]:
        for name, part in self._parts.items():
            empty = True
            for item in part.items(part.config.limit):
                empty = False
                labels = {**_own(item.labels, name), PART: name}
                yield replace(item, id=f"{name}/{item.id}", labels=labels)
            if empty:
                raise DataError(f"part '{name}' of the mix has no items at '{part.config.path}'; check its section")

    def read(self, item: SourceItem) -> RawSample:
        name, _, rest = item.id.partition("/")
        labels = {key: value for key, value in item.labels.items() if key != PART}
        if "identity" in labels:
            labels["identity"] = str(labels["identity"]).removeprefix(f"{name}/")
        raw = self._parts[name].read(replace(item, id=rest, labels=labels))
        return replace(raw, labels=_own(raw.labels, name))


def _own(labels: Mapping[str, Any], part: str) -> dict[str, Any]:
    """Labels whose identity is not taken for the one of that name in another part."""
    found = dict(labels)
    if found.get("identity") is not None:
        found["identity"] = f"{part}/{found['identity']}"
    return found
