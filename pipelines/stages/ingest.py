"""``ingest``: whatever the source holds -> one upright square RGB image, its mask cut alike, and its facts."""

from __future__ import annotations

import io
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, ClassVar, Literal

from PIL import Image
from pydantic import Field

from e4t_core.errors import StorageError
from e4t_core.record import content_hash
from e4t_core.schema import Sample, encode_json
from pipelines.sources.base import RawSample, SourceItem
from pipelines.stages._decode import PILLOW_MAX_PIXELS, Fault, Limits, Upright, on_white, open_upright
from pipelines.stages.base import Bad, Stage, StageConfig

_MEMBERS = {"png": "image.png", "jpeg": "image.jpg", "webp": "image.webp"}


class IngestConfig(StageConfig):
    """How images are made uniform.

    Attributes:
        size: pixel side of the result.
        crop: the part that is kept: ``center``, the largest centred square.
        format: how the result is stored.
        quality: of ``jpeg`` and ``webp``.
        png_level: zlib level of ``png``; 6 is 10 % smaller than 2 and three times slower.
        max_pixels: larger images are quarantined as ``bomb`` before any pixel is decoded.
        min_size: images whose smaller side is less are quarantined as ``too_small``.
        animated: take the first frame of animations, or quarantine them.
        readers: source reads in flight at once; more than 1 hides the latency of a bucket.
    """

    size: Annotated[int, Field(ge=8)]
    crop: Literal["center"] = "center"
    format: Literal["png", "jpeg", "webp"] = "png"
    quality: Annotated[int, Field(ge=1, le=100)] = 95
    png_level: Annotated[int, Field(ge=0, le=9)] = 2
    max_pixels: Annotated[int, Field(ge=1, le=PILLOW_MAX_PIXELS)] = 80_000_000
    min_size: Annotated[int, Field(ge=1)] = 32
    animated: Literal["first", "quarantine"] = "first"
    readers: Annotated[int, Field(ge=1)] = 1


class Ingest(Stage):
    """The first column. Reads the source; every other stage reads shards."""

    name: ClassVar[str] = "ingest"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ()
    writes: ClassVar[tuple[str, ...]] = ("image.*", "source_mask.png", "meta.json")
    Config: ClassVar[type[StageConfig]] = IngestConfig
    config: IngestConfig

    def settings(self) -> dict[str, Any]:
        return {k: v for k, v in super().settings().items() if k != "readers"}

    def __call__(self, batch: Sequence[Sample]) -> list[Mapping[str, bytes] | Bad]:
        return [self._one(sample, raw) for sample, raw in zip(batch, self._read_all(batch), strict=True)]

    def _read_all(self, batch: Sequence[Sample]) -> Iterator[RawSample | Bad]:
        if self.config.readers == 1:
            yield from map(_read, batch)
            return
        with ThreadPoolExecutor(self.config.readers) as pool:
            yield from pool.map(_read, batch)

    def _one(self, sample: Sample, raw: RawSample | Bad) -> Mapping[str, bytes] | Bad:
        if isinstance(raw, Bad):
            return raw
        try:
            return self._members(sample, raw)
        except Fault as fault:
            return fault.bad

    def _members(self, sample: Sample, raw: RawSample) -> dict[str, bytes]:
        size = self.config.size
        limits = Limits(self.config.max_pixels, self.config.min_size)
        opened = open_upright(raw.image, "the image", limits, size)
        if opened.animated and self.config.animated == "quarantine":
            raise Fault("animated", f"it is an animated {opened.format}; give one frame, or set animated=first")
        box = opened.square()
        image = on_white(opened.resized(box, size, Image.Resampling.LANCZOS))
        members = {_MEMBERS[self.config.format]: self._encode(image)}
        if raw.mask is not None:
            members["source_mask.png"] = self._mask(raw.mask, opened)
        members["meta.json"] = encode_json(_meta(sample["__item__"], raw, opened, box))
        return members

    def _encode(self, image: Image.Image) -> bytes:
        image.info = {}  # colour profiles and comments of the original would be written along
        buffer = io.BytesIO()
        options: dict[str, Any] = {
            "png": {"compress_level": self.config.png_level},
            "jpeg": {"quality": self.config.quality, "subsampling": 0},
            "webp": {"quality": self.config.quality},
        }[self.config.format]
        image.save(buffer, self.config.format, **options)
        return buffer.getvalue()

    def _mask(self, data: bytes, image: Upright) -> bytes:
        """8-bit PNG of the mask, cut and scaled like ``image``."""
        try:
            mask = open_upright(data, "the mask", Limits(self.config.max_pixels, 1), self.config.size)
        except Fault as fault:
            raise Fault("mask_unreadable", str(fault)) from fault
        if (mask.width, mask.height) != (image.width, image.height):
            raise Fault(
                "mask_mismatch",
                f"the mask is {mask.width} x {mask.height}, the upright image {image.width} x {image.height}; "
                "they must have the same size",
            )
        levels = mask.resized(image.square(), self.config.size, Image.Resampling.BILINEAR).convert("L")
        buffer = io.BytesIO()
        levels.save(buffer, "PNG", compress_level=self.config.png_level)
        return buffer.getvalue()


def _read(sample: Sample) -> RawSample | Bad:
    """One item's bytes. A lost connection is no fault of the sample: it fails the shard, which is tried again."""
    item = sample["__item__"]
    try:
        return sample["__source__"].read(item)
    except FileNotFoundError:
        return Bad("vanished", f"{item.uri} was listed but is gone; put it back, or list the source again")
    except (ConnectionError, TimeoutError):
        raise
    except OSError as error:
        advice = "; its permissions must allow it" if isinstance(error, PermissionError) else ""
        return Bad("unreadable", f"{item.uri} cannot be read: {error}{advice}")
    except StorageError as error:
        if isinstance(error.__cause__, PermissionError):
            return Bad("unreadable", str(error))
        raise


def _meta(item: SourceItem, raw: RawSample, image: Upright, box: tuple[int, int, int, int]) -> dict[str, Any]:
    """``meta.json``: what the sample is, where it came from, and what was done to it."""
    return {
        "id": item.id,
        "labels": {**item.labels, **raw.labels},
        "caption": raw.caption,
        "template": raw.template,
        "sha256": content_hash(raw.image),
        "format": image.format,
        "mislabelled": _mislabelled(item.uri, image.format),
        "mode": image.mode,
        "width": image.width,
        "height": image.height,
        "orientation": image.orientation,
        "animated": image.animated,
        "crop": list(box),
    }


def _mislabelled(uri: str, kind: str) -> bool:
    """Whether the file's extension names another image format than its content."""
    named = Image.registered_extensions().get(posixpath.splitext(uri)[1].lower())
    return named is not None and named != ("JPEG" if kind == "MPO" else kind)
