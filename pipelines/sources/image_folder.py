"""``image_folder``: any folder or bucket of image files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import PurePosixPath
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from e4t_core.errors import DataError
from e4t_core.storage import Entry, Store
from pipelines.sources._listing import IMAGE_EXTENSIONS, first_by_id, folders, is_image, open_folder, smaller
from pipelines.sources._text import check_length
from pipelines.sources.base import RawSample, Source, SourceConfig, SourceItem


class ImageFolderConfig(SourceConfig):
    """What is taken from the folder.

    Attributes:
        labels: ``parent`` labels every image with ``identity``, the name of the folder that it lies in; ``none`` not.
        caption_ext: files named like the image with this extension (``.txt``) hold its caption, as UTF-8 text.
        mask_suffix: files named like the image with this ending (``.mask.png``: ``a.mask.png`` for ``a.jpg``) hold its
            mask, and are no images of their own.
    """

    labels: Literal["parent", "none"] = "parent"
    caption_ext: Annotated[str, Field(pattern=r"^\.[^/]+$")] | None = None
    mask_suffix: Annotated[str, Field(pattern=r"^[^/]*\.[^/]+$")] | None = None


class ImageFolder(Source):
    """Files *.jpg, *.jpeg, *.png, *.webp, *.bmp, *.gif, *.tif, *.tiff in a folder and its subfolders.

    Ids are paths below the folder. Local, ``s3://`` and whatever fsspec knows. An image's ETag covers its caption and
    mask files, so that a changed caption is seen.
    """

    name: ClassVar[str] = "image_folder"
    Config: ClassVar[type[SourceConfig]] = ImageFolderConfig
    config: ImageFolderConfig

    @cached_property
    def _store(self) -> Store:
        return open_folder(self.config.path, self.name)

    def items(self, limit: int | None = None) -> Iterator[SourceItem]:
        """Stream the listing.

        Raises:
            UsageError: no path is given.
            DataError: the folder is missing, is a file, or holds no image.
            StorageError: it may not be listed.
        """
        return first_by_id(self._all(), smaller(limit, self.config.limit))

    def read(self, item: SourceItem) -> RawSample:
        stem = _stem(item.id)
        caption = self._beside(stem, self.config.caption_ext)
        return RawSample(
            image=self._store.read(item.id),
            mask=self._beside(stem, self.config.mask_suffix),
            caption=None if caption is None else _text(caption, f"{stem}{self.config.caption_ext}"),
        )

    def _beside(self, stem: str, suffix: str | None) -> bytes | None:
        """The sidecar's bytes, if the image has one."""
        if suffix is None:
            return None
        try:
            return self._store.read(stem + suffix)
        except FileNotFoundError:
            return None

    def _all(self) -> Iterator[SourceItem]:
        found = files = 0
        for folder, entries in folders(self._store):
            files += len(entries)
            for item in self._in_folder(folder, entries):
                found += 1
                yield item
        if not found:
            raise DataError(
                f"no images in '{self.config.path}' or its subfolders ({files} files are there); "
                f"looked for {', '.join(IMAGE_EXTENSIONS)} in any case"
            )

    def _in_folder(self, folder: str, entries: list[Entry]) -> Iterator[SourceItem]:
        suffixes = [s for s in (self.config.caption_ext, self.config.mask_suffix) if s]
        tags = {entry.key: entry.etag for entry in entries} if suffixes else {}
        labels = self._labels(folder)
        for entry in entries:
            if self._is_item(entry.key):
                beside = [tags.get(_stem(entry.key) + s, "") for s in suffixes]
                etag = "+".join((entry.etag, *beside))
                yield SourceItem(id=entry.key, uri=self._store.url(entry.key), etag=etag, labels=labels)

    def _is_item(self, key: str) -> bool:
        mask = self.config.mask_suffix
        return is_image(key) and not (mask and key.endswith(mask))

    def _labels(self, folder: str) -> Mapping[str, str]:
        if self.config.labels == "none":
            return {}
        return {"identity": PurePosixPath(folder or self._store.root).name}


def _stem(key: str) -> str:
    """``a/b.c`` of ``a/b.c.jpg``."""
    return key.rpartition(".")[0]


def _text(data: bytes, what: str) -> str | None:
    """A caption file's text; an empty one is none.

    Raises:
        OSError: it is too long or not UTF-8, so the sample is quarantined as unreadable.
    """
    check_length(len(data), f"the caption file {what}")
    try:
        return data.decode("utf-8-sig").strip() or None
    except UnicodeDecodeError as error:
        raise OSError(f"the caption file {what} is not UTF-8 text: {error}") from error
