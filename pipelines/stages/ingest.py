"""``ingest``: whatever the source holds -> one upright square RGB image, its mask cut alike, and its facts."""

from __future__ import annotations

import io
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from PIL import Image
from pydantic import Field, model_validator

from e4t_core.backbones.face_detector import FaceDetectorConfig, face_detector_fingerprint, load_face_detector
from e4t_core.errors import StorageError
from e4t_core.record import content_hash
from e4t_core.schema import Sample, encode_json
from pipelines.sources.base import RawSample, SourceItem
from pipelines.stages._crop import CentreCrop, Crop, face_crop
from pipelines.stages._decode import PILLOW_MAX_PIXELS, Fault, Limits, Upright, on_white, open_upright
from pipelines.stages._quality import perceptual_hash, sharpness
from pipelines.stages.base import Bad, Stage, StageConfig

if TYPE_CHECKING:
    from e4t_core.backbones._scrfd import Scrfd

_RAW = "__raw__"
_MEMBERS = {"png": "image.png", "jpeg": "image.jpg", "webp": "image.webp"}


class IngestConfig(StageConfig):
    """How images are made uniform.

    Attributes:
        size: pixel side of the result.
        crop: the part that is kept: ``center``, the largest centred square; ``ffhq``, the largest face, turned upright
            and framed as in FFHQ.
        detector: finds the faces for ``ffhq``; images without one are quarantined as ``no_face``.
        format: how the result is stored.
        quality: of ``jpeg`` and ``webp``.
        png_level: zlib level of ``png``; 6 is 10 % smaller than 2 and three times slower.
        max_pixels: larger images are quarantined as ``bomb`` before any pixel is decoded.
        min_size: images whose smaller side is less are quarantined as ``too_small``; so are faces whose square is.
        max_aspect: images whose longer side is more than so many times the shorter, before anything is cut off, are
            quarantined as ``too_narrow``.
        min_sharpness: results with a lower variance of the Laplacian of their grey levels (0 to 255) are quarantined
            as ``blurred``. It grows with noise and falls with ``size``, so take the bound from a look at some images.
        phash: write a perceptual hash into ``meta.json``, by which ``shards duplicates`` finds near-duplicates.
        animated: take the first frame of animations, or quarantine them.
        readers: source reads in flight at once, while the batch before is decoded; a bucket wants several.
    """

    size: Annotated[int, Field(ge=8)]
    crop: Literal["center", "ffhq"] = "center"
    detector: FaceDetectorConfig | None = None
    format: Literal["png", "jpeg", "webp"] = "png"
    quality: Annotated[int, Field(ge=1, le=100)] = 95
    png_level: Annotated[int, Field(ge=0, le=9)] = 2
    max_pixels: Annotated[int, Field(ge=1, le=PILLOW_MAX_PIXELS)] = 80_000_000
    min_size: Annotated[int, Field(ge=1)] = 32
    max_aspect: Annotated[float, Field(ge=1)] | None = None
    min_sharpness: Annotated[float, Field(gt=0)] | None = None
    phash: bool = True
    animated: Literal["first", "quarantine"] = "first"
    readers: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _detector_for_faces(self) -> IngestConfig:
        if self.crop == "ffhq" and self.detector is None:
            raise ValueError("crop 'ffhq' needs a section 'detector' with the path of a face detector")
        if self.crop == "center" and self.detector is not None:
            raise ValueError("crop 'center' looks for no face: leave the section 'detector' out, or set crop to 'ffhq'")
        return self


class Ingest(Stage):
    """The first column. Reads the source; every other stage reads shards."""

    name: ClassVar[str] = "ingest"
    version: ClassVar[int] = 2
    reads: ClassVar[tuple[str, ...]] = ()
    writes: ClassVar[tuple[str, ...]] = ("image.*", "source_mask.png", "meta.json")
    Config: ClassVar[type[StageConfig]] = IngestConfig
    config: IngestConfig
    detector: Scrfd | None = None

    def settings(self) -> dict[str, Any]:
        about = {k: v for k, v in super().settings().items() if k not in ("readers", "detector")}
        return about | ({"detector": self.config.detector.settings()} if self.config.detector else {})

    def weights(self) -> str:
        return face_detector_fingerprint(self.config.detector) if self.config.detector else ""

    def setup(self) -> None:
        """Open the detector, if the recipe has one.

        Raises:
            UsageError: it cannot be opened, or is none.
        """
        if self.config.detector is not None:
            self.detector = load_face_detector(self.config.detector, self.config.resources.threads)

    def __call__(self, batch: Sequence[Sample]) -> list[Mapping[str, bytes] | Bad]:
        ready = all(_RAW in sample for sample in batch)
        raws = [sample[_RAW] for sample in batch] if ready else self._read_all(batch)
        return [self._one(sample, raw) for sample, raw in zip(batch, raws, strict=True)]

    def prepare(self, batch: Sequence[Sample]) -> None:
        for sample, raw in zip(batch, self._read_all(batch), strict=True):
            sample[_RAW] = raw

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
        c = self.config
        limits = Limits(c.max_pixels, c.min_size, c.max_aspect)
        opened = open_upright(raw.image, "the image", limits, self._target)
        if opened.animated and c.animated == "quarantine":
            raise Fault("animated", f"it is an animated {opened.format}; give one frame, or set animated=first")
        crop, opened = self._placed(opened)
        image = on_white(crop.of(opened, c.size, Image.Resampling.LANCZOS))
        self._refuse_blurred(image)
        members = {_MEMBERS[c.format]: self._encode(image)}
        if raw.mask is not None:
            members["source_mask.png"] = self._mask(raw.mask, opened, crop)
        seen = {"phash": perceptual_hash(image)} if c.phash else {}
        members["meta.json"] = encode_json(_meta(sample["__item__"], raw, opened) | crop.facts() | seen)
        return members

    @property
    def _target(self) -> int | None:
        """What pictures may be decoded down to. A face may be any part of one, so then it is needed whole."""
        return self.config.size if self.config.crop == "center" else None

    def _placed(self, image: Upright) -> tuple[Crop, Upright]:
        """What is kept, and the picture to cut it from."""
        section = self.config.detector
        if section is None:
            return CentreCrop(image.square()), image
        if self.detector is None:
            raise RuntimeError("setup() loads the detector and has not been called")
        shown = replace(image, image=on_white(image.image))
        return face_crop(shown, self.detector, section.score, self.config.min_size), shown

    def _refuse_blurred(self, image: Image.Image) -> None:
        least = self.config.min_sharpness
        if least is not None and (found := sharpness(image)) < least:
            raise Fault(
                "blurred",
                f"its sharpness (variance of the Laplacian at {image.width} x {image.height}) is {found:.4g}; at least "
                f"{least:g} (stages.ingest.min_sharpness) is kept",
            )

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

    def _mask(self, data: bytes, image: Upright, crop: Crop) -> bytes:
        """8-bit PNG of the mask, cut and scaled like ``image``."""
        try:
            mask = open_upright(data, "the mask", Limits(self.config.max_pixels, 1), self._target)
        except Fault as fault:
            raise Fault("mask_unreadable", str(fault)) from fault
        if (mask.width, mask.height) != (image.width, image.height):
            raise Fault(
                "mask_mismatch",
                f"the mask is {mask.width} x {mask.height}, the upright image {image.width} x {image.height}; "
                "they must have the same size",
            )
        levels = crop.of(mask, self.config.size, Image.Resampling.BILINEAR)
        buffer = io.BytesIO()
        levels.convert("L").save(buffer, "PNG", compress_level=self.config.png_level)
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


def _meta(item: SourceItem, raw: RawSample, image: Upright) -> dict[str, Any]:
    """``meta.json`` but for the crop: what the sample is, where it came from, and what was done to it."""
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
    }


def _mislabelled(uri: str, kind: str) -> bool:
    """Whether the file's extension names another image format than its content."""
    named = Image.registered_extensions().get(posixpath.splitext(uri)[1].lower())
    return named is not None and named != ("JPEG" if kind == "MPO" else kind)
