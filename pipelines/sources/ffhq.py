"""``ffhq``: Flickr-Faces-HQ as published."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar, Literal, get_args

from e4t_core.errors import DataError
from e4t_core.storage import Store
from e4t_core.texts import read_text
from pipelines.sources._listing import above, beside, first_by_id, folders, open_folder, smaller
from pipelines.sources.base import RawSample, Source, SourceConfig, SourceItem

Images = Literal["images1024x1024", "thumbnails128x128", "in-the-wild-images"]
_KINDS = get_args(Images)
METADATA = "ffhq-dataset-v2.json"
_IMAGE = re.compile(r"(\d{2})000/(\1\d{3})\.(?:png|jpg|webp)")
"""``69000/69999.png``: folders of a thousand. Many keep the images re-encoded, under the same numbers."""


class FfhqConfig(SourceConfig):
    """Which images are taken.

    Attributes:
        images: which of the published folders below ``path``; not asked where ``path`` is one of them.
        metadata: path or URI of ``ffhq-dataset-v2.json``; by default the one beside the folder, if it is there.
        split: take one of the two splits that the metadata names.
    """

    images: Images = "images1024x1024"
    metadata: str | None = None
    split: Literal["all", "training", "validation"] = "all"


class Ffhq(Source):
    """Files images1024x1024/00000/00000.png to 69000/69999.png, with ffhq-dataset-v2.json beside the folder if there.

    Ids are the numbers, ``00000`` to ``69999``; the label ``split`` is the metadata's ``category``.
    """

    name: ClassVar[str] = "ffhq"
    Config: ClassVar[type[SourceConfig]] = FfhqConfig
    config: FfhqConfig

    @cached_property
    def _store(self) -> Store:
        root = open_folder(self.config.path, self.name)
        return root if root.root.rpartition("/")[2] in _KINDS else open_folder(root.url(self.config.images), self.name)

    def items(self, limit: int | None = None) -> Iterator[SourceItem]:
        """Stream the listing.

        Raises:
            UsageError: no path is given.
            DataError: nothing in the published layout is there, or the metadata is missing, damaged or of other images.
        """
        return first_by_id(self._all(), smaller(limit, self.config.limit))

    def read(self, item: SourceItem) -> RawSample:
        return RawSample(image=self._store.read(item.uri.removeprefix(self._store.url(""))))

    def _all(self) -> Iterator[SourceItem]:
        split_of, found = self._splits(), 0
        for _, entries in folders(self._store):
            for entry in entries:
                match = _IMAGE.fullmatch(entry.key)
                if not match:
                    continue
                found += 1
                labels = self._labels(split_of, match[2])
                if self.config.split in ("all", labels.get("split")):
                    yield SourceItem(match[2], self._store.url(entry.key), entry.etag, labels)
        if not found:
            raise DataError(
                f"no '00000/00000.png' in '{self._store.uri}'; source.path must be the dataset's folder, or one of "
                f"{', '.join(_KINDS)} in it"
            )

    def _labels(self, split_of: Mapping[str, str] | None, number: str) -> Mapping[str, str]:
        if split_of is None:
            return {}
        if str(int(number)) not in split_of:
            raise DataError(
                f"image {number} of '{self._store.uri}' is not in {METADATA}; give the metadata of these images"
            )
        return {"split": split_of[str(int(number))]}

    def _splits(self) -> Mapping[str, str] | None:
        """Number -> split, as the metadata has it; None without metadata."""
        store = self._store
        uri = self.config.metadata or beside((store, above(store)), METADATA)
        if uri is None:
            if self.config.split != "all":
                raise DataError(
                    f"source.split={self.config.split} needs {METADATA}, and none is in '{store.uri}' or beside it; "
                    "set source.metadata"
                )
            return None
        return _categories(uri)


def _categories(uri: str) -> Mapping[str, str]:
    try:
        found: dict[str, Any] = json.loads(read_text(uri, "source.metadata"))
        categories = {number: about["category"] for number, about in found.items()}
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise DataError(
            f'source.metadata \'{uri}\' should be {METADATA} as published, {{"0": {{"category": ...}}, ...}}: {error!r}'
        ) from error
    return categories
