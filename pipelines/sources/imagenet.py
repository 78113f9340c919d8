"""``imagenet``: ILSVRC's training images, by WordNet id."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Annotated, Any, ClassVar

from pydantic import Field

from e4t_core.errors import DataError, UsageError
from e4t_core.storage import Entry, Store
from e4t_core.texts import read_text
from pipelines.english import with_article
from pipelines.sources._listing import above, beside, first_by_id, folders, is_image, open_folder, smaller
from pipelines.sources._tars import address, members, parse_address, read_parts
from pipelines.sources.base import RawSample, Source, SourceConfig, SourceItem

WORDS = ("LOC_synset_mapping.txt", "synset_words.txt")
_WNID = re.compile(r"n\d{8}", re.ASCII)
_LINE = re.compile(r"(n\d{8})\s+(\S.*)", re.ASCII)


class ImageNetConfig(SourceConfig):
    """Which images are taken.

    Attributes:
        synset_words: path or URI of ``LOC_synset_mapping.txt`` or ``synset_words.txt``, lines like ``n01440764 tench,
            Tinca tinca``. By default the one in ``path`` or its parent; without any, classes have no names.
        classes: WordNet ids to take; all by default.
        per_class: at most so many images of each class, the first in id order.
    """

    synset_words: str | None = None
    classes: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    per_class: Annotated[int, Field(ge=1)] | None = None


class ImageNet(Source):
    """Files n01440764/n01440764_10026.JPEG, one folder a class, or n01440764.tar, one tar a class.

    Ids are ``n01440764/n01440764_10026``, without extension, from either. Labels: ``wnid``; where the words are known,
    ``class``, the first synonym, and ``synonyms``, all of them.
    """

    name: ClassVar[str] = "imagenet"
    Config: ClassVar[type[SourceConfig]] = ImageNetConfig
    config: ImageNetConfig

    @cached_property
    def _store(self) -> Store:
        return open_folder(self.config.path, self.name)

    def items(self, limit: int | None = None) -> Iterator[SourceItem]:
        """Stream the listing: folders, then tars.

        What is wrong with the whole is raised after the folders, so a caller must exhaust the listing before it
        believes it; ``limit`` does that.

        Raises:
            UsageError: no path is given, or no class has that WordNet id.
            DataError: nothing in the published layout is there, a class is there twice, a tar is truncated, or the
                words are missing or malformed.
        """
        return first_by_id(self._all(), smaller(limit, self.config.limit))

    def read(self, item: SourceItem) -> RawSample:
        name = item.labels.get("class")
        return RawSample(
            image=self._image(item.uri.removeprefix(self._store.url(""))),
            caption=None if name is None else f"a photo of {with_article(name)}",
            template="a photo of {}",
        )

    def _image(self, key: str) -> bytes:
        if "/" in key.partition("#")[0]:
            return self._store.read(key)
        tar, parts = parse_address(key)
        return next(iter(read_parts(self._store, tar, parts).values()))

    def _all(self) -> Iterator[SourceItem]:
        words = self._words()
        unpacked: set[str] = set()
        tars: dict[str, Entry] = {}
        for folder, entries in folders(self._store):
            if not folder:
                tars = {wnid: entry for entry in entries if (wnid := _tar_of(entry.key))}
            images = [entry for entry in entries if is_image(entry.key)]
            if images and _WNID.fullmatch(folder):
                unpacked.add(folder)
                if self._wanted(folder):
                    yield from self._some(self._in_folder(images, _labels(folder, words)))
        self._judge(unpacked, set(tars))
        for wnid, entry in tars.items():
            if self._wanted(wnid):
                yield from self._some(self._in_tar(wnid, entry, _labels(wnid, words)))

    def _wanted(self, wnid: str) -> bool:
        return self.config.classes is None or wnid in self.config.classes

    def _some(self, items: Iterator[SourceItem]) -> Iterator[SourceItem]:
        return first_by_id(items, self.config.per_class)

    def _in_folder(self, images: list[Entry], labels: Mapping[str, Any]) -> Iterator[SourceItem]:
        for entry in images:
            yield SourceItem(entry.key.rpartition(".")[0], self._store.url(entry.key), entry.etag, labels)

    def _in_tar(self, wnid: str, tar: Entry, labels: Mapping[str, Any]) -> Iterator[SourceItem]:
        for member in members(self._store, tar.key):
            name = member.name.rpartition("/")[2]
            if member.kind == "folder" or name.startswith(".") or not is_image(name):
                continue
            stem, _, ext = name.rpartition(".")
            uri = address(self._store.url(tar.key), {ext: member})
            yield SourceItem(f"{wnid}/{stem}", uri, f"{tar.etag}#{uri.rpartition('#')[2]}", labels)

    def _judge(self, unpacked: set[str], packed: set[str]) -> None:
        """Raise what is wrong with the whole."""
        path = self.config.path
        if not unpacked | packed:
            raise DataError(
                f"no 'n01440764/n01440764_10026.JPEG' and no 'n01440764.tar' in '{path}'; source.path must be the "
                "folder that holds the classes (unpack ILSVRC2012_img_train.tar once: the classes' tars are in it)"
            )
        if both := sorted(unpacked & packed):
            raise DataError(
                f"'{path}' has {both[0]}/ and {both[0]}.tar ({len(both)} classes are there twice); remove one of each"
            )
        known = sorted(unpacked | packed)
        for wnid in self.config.classes or ():
            if wnid not in known:
                near = difflib.get_close_matches(wnid, known, n=1, cutoff=0)[0]
                raise UsageError(
                    f"source.classes: '{path}' has no class '{wnid}'; of its {len(known)}, '{near}' is nearest"
                )

    def _words(self) -> Mapping[str, list[str]]:
        """WordNet id -> synonyms; empty where there is no list."""
        uri = self.config.synset_words or beside((self._store, above(self._store)), *WORDS)
        return read_words(uri) if uri else {}


def _tar_of(key: str) -> str | None:
    """The class that a file's name says it is the tar of."""
    wnid, _, ext = key.partition(".")
    return wnid if ext == "tar" and _WNID.fullmatch(wnid) else None


def _labels(wnid: str, words: Mapping[str, list[str]]) -> Mapping[str, Any]:
    synonyms = words.get(wnid)
    return {"wnid": wnid, **({"class": synonyms[0], "synonyms": synonyms} if synonyms else {})}


def read_words(uri: str) -> Mapping[str, list[str]]:
    """WordNet id -> synonyms, of ``n01440764 tench, Tinca tinca`` lines.

    Raises:
        DataError: the list is missing, malformed, or names a class twice.
    """
    words: dict[str, list[str]] = {}
    for number, line in enumerate(read_text(uri, "source.synset_words").splitlines(), 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        synonyms = [word.strip() for word in match[2].split(",")] if match else []
        if not match or not all(synonyms):
            raise DataError(
                f"source.synset_words '{uri}', line {number}: '{line[:60]}' should look like "
                "'n01440764 tench, Tinca tinca'"
            )
        if match[1] in words:
            raise DataError(f"source.synset_words '{uri}' names {match[1]} twice, again in line {number}")
        words[match[1]] = synonyms
    return words
