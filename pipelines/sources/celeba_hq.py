"""``celeba_hq``: CelebA-HQ as published with CelebAMask-HQ, with CelebA's identities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from e4t_core.errors import DataError
from e4t_core.storage import Store
from e4t_core.texts import read_text
from pipelines.sources._listing import above, beside, first_by_id, folders, is_image, open_folder, smaller
from pipelines.sources.base import RawSample, Source, SourceConfig, SourceItem

IMAGES = "CelebA-HQ-img"
ATTRIBUTES = "CelebAMask-HQ-attribute-anno.txt"
MAPPING = "CelebA-HQ-to-CelebA-mapping.txt"
IDENTITIES = "identity_CelebA.txt"


class CelebaHqConfig(SourceConfig):
    """Where the lists are; each is looked for in ``path`` under its published name, and left out if it is not there.

    Attributes:
        attributes: path or URI of ``CelebAMask-HQ-attribute-anno.txt``: the 40 attributes of each image.
        identities: path or URI of ``identity_CelebA.txt``: CelebA's file -> number of a person.
        mapping: path or URI of ``CelebA-HQ-to-CelebA-mapping.txt``: which of CelebA's files an image is.
    """

    attributes: str | None = None
    identities: str | None = None
    mapping: str | None = None


class CelebaHq(Source):
    """Files CelebA-HQ-img/0.jpg to 29999.jpg, with the lists of attributes and identities if there.

    Ids are the numbers. Labels: ``attributes``, the names of those an image has (``Eyeglasses``), and ``identity``.
    """

    name: ClassVar[str] = "celeba_hq"
    Config: ClassVar[type[SourceConfig]] = CelebaHqConfig
    config: CelebaHqConfig

    @cached_property
    def _root(self) -> Store:
        root = open_folder(self.config.path, self.name)
        return (above(root) or root) if root.root.rpartition("/")[2] == IMAGES else root

    @cached_property
    def _store(self) -> Store:
        return open_folder(self._root.url(IMAGES), self.name)

    def items(self, limit: int | None = None) -> Iterator[SourceItem]:
        """Stream the listing.

        Raises:
            UsageError: no path is given.
            DataError: no images in the published layout, or a list is missing, malformed, or of other images.
        """
        return first_by_id(self._all(), smaller(limit, self.config.limit))

    def read(self, item: SourceItem) -> RawSample:
        return RawSample(image=self._store.read(item.uri.removeprefix(self._store.url(""))))

    def _all(self) -> Iterator[SourceItem]:
        lists, found = self._lists(), 0
        for _, entries in folders(self._store):
            for entry in entries:
                number = entry.key.rpartition(".")[0]
                if is_image(entry.key) and number.isdigit():
                    found += 1
                    yield SourceItem(number, self._store.url(entry.key), entry.etag, lists.labels(number))
        if not found:
            raise DataError(
                f"no '{IMAGES}/0.jpg' in '{self._root.uri}'; source.path must be the folder that holds {IMAGES}"
            )

    def _lists(self) -> _Lists:
        def found(given: str | None, name: str) -> str | None:
            return given or beside((self._root,), name)

        attributes, identities = found(self.config.attributes, ATTRIBUTES), found(self.config.identities, IDENTITIES)
        mapping = found(self.config.mapping, MAPPING) if identities else None
        return _Lists(
            read_attributes(attributes) if attributes else None,
            _column(identities, "source.identities", "000001.jpg 2880", 1) if identities else None,
            _column(mapping, "source.mapping", "0 119613 119614.jpg", 2) if mapping else None,
        )


@dataclass(frozen=True)
class _Lists:
    """What is known about images; None is a list that is not there."""

    attributes: Mapping[str, tuple[str, ...]] | None
    identities: Mapping[str, str] | None
    originals: Mapping[str, str] | None

    def labels(self, number: str) -> dict[str, Any]:
        out: dict[str, Any] = {}
        if self.identities is not None:
            out["identity"] = _of(self.identities, self._original(number), "the identity list", number)
        if self.attributes is not None:
            out["attributes"] = list(_of(self.attributes, f"{number}.jpg", "the attribute list", number))
        return out

    def _original(self, number: str) -> str:
        if self.originals is None:
            return f"{number}.jpg"  # a list that names CelebA-HQ's own files
        return _of(self.originals, number, "the mapping to CelebA", number)


def _of(table: Mapping[str, Any], key: str, what: str, number: str) -> Any:
    if key not in table:
        raise DataError(
            f"image {number}: {what} has no '{key}'; give the lists of these images as published "
            f"(identities of CelebA's own files need {MAPPING})"
        )
    return table[key]


def read_attributes(uri: str) -> Mapping[str, tuple[str, ...]]:
    """File name -> names of the attributes that it has: a count, the names, then ``0.jpg  -1  1 ...`` lines.

    Raises:
        DataError: it is not in that format.
    """
    count, names, *rows = [*read_text(uri, "source.attributes").splitlines(), ""]
    attributes = names.split()
    rows = [row for row in rows if row.strip()]
    if not count.strip().isdecimal() or int(count) != len(rows):
        raise DataError(f"source.attributes '{uri}' announces '{count.strip()[:40]}' images and lists {len(rows)}")
    out = {}
    for number, row in enumerate(rows, 3):
        name, *values = row.split()
        if len(values) != len(attributes) or not {"1", "-1"}.issuperset(values):
            raise DataError(
                f"source.attributes '{uri}', line {number}: '{row[:60]}' should be a file and {len(attributes)} "
                "values, each 1 or -1"
            )
        out[name] = tuple(a for a, value in zip(attributes, values, strict=True) if value == "1")
    return out


def _column(uri: str, field: str, example: str, column: int) -> Mapping[str, str]:
    """First column -> another, of lines that look like ``example``; a heading is left out."""
    out = {}
    for number, line in enumerate(read_text(uri, field).splitlines(), 1):
        words = line.split()
        if not words or words[0] == "idx":
            continue
        if len(words) != len(example.split()):
            raise DataError(f"{field} '{uri}', line {number}: '{line[:60]}' should look like '{example}'")
        out[words[0]] = words[column]
    return out
