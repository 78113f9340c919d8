"""A source that lives in memory, and short ways to run one stage."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from e4t_core.backbones.config import BackboneConfig, ClipConfig, Models
from e4t_core.schema import Sample
from pipelines.sources import RawSample, Source, SourceConfig, SourceItem
from pipelines.stages.ingest import Ingest, IngestConfig

MODELS = Models(
    backbone=BackboneConfig(path="bundled:tiny", random_seed=0, resolution=64),
    clip=ClipConfig(path="bundled:clip_tiny", random_seed=0),
)


class MemorySource(Source):
    """Holds samples, or the errors that reading them raises."""

    name: ClassVar[str] = "memory"
    Config: ClassVar[type[SourceConfig]] = SourceConfig

    def __init__(self, samples: Mapping[str, RawSample | Exception]) -> None:
        super().__init__(SourceConfig(name="memory"))
        self.samples = samples

    def items(self, limit: int | None = None) -> Iterator[SourceItem]:
        for name in sorted(self.samples)[:limit]:
            yield SourceItem(id=name, uri=f"memory/{name}", etag="1", labels={"identity": name.split("_")[0]})

    def read(self, item: SourceItem) -> RawSample:
        found = self.samples[item.id]
        if isinstance(found, Exception):
            raise found
        return found


def batch_of(source: Source) -> list[Sample]:
    """What the executor hands to ``ingest``."""
    return [{"__key__": f"{i:04d}", "__item__": item, "__source__": source} for i, item in enumerate(source.items())]


def ingested(raw: RawSample | Exception, name: str = "a_1.png", **config: Any) -> Any:
    """The one result of ingesting ``raw``."""
    stage = Ingest(IngestConfig(**{"size": 64, **config}), MODELS)
    return stage(batch_of(MemorySource({name: raw})))[0]


def pixels(data: bytes) -> NDArray[np.uint8]:
    """(H, W, 3) or (H, W) pixels of an encoded image."""
    return np.array(Image.open(io.BytesIO(data)))
