"""``webdataset``: existing WebDataset tars, in a folder or a bucket, or one of them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import groupby
from typing import Annotated, Any, ClassVar

from pydantic import Field

from e4t_core.errors import DataError
from e4t_core.storage import Entry, Store
from pipelines.sources._listing import IMAGE_EXTENSIONS, first_by_id, folders, open_folder, smaller
from pipelines.sources._tars import Member, address, members, parse_address, read_parts
from pipelines.sources._text import check_length
from pipelines.sources.base import RawSample, Source, SourceConfig, SourceItem

Extension = Annotated[str, Field(pattern=r"^[a-z0-9_-][a-z0-9_.-]*$")]
"""Without the dot, in lower case, as WebDataset has them: ``seg.png`` of ``0001.seg.png``."""

_TARS = (".tar", ".tar.gz", ".tgz")  # those that cannot be read are refused, and not passed over
_META = re.compile(r"__[^/]*__($|/)")


class WebDatasetConfig(SourceConfig):
    """Which members of a sample are taken for what. Extensions are without the first dot.

    Attributes:
        image_exts: the first of these that a sample has is its image.
        caption_ext: UTF-8 text, the caption; None takes none.
        json_ext: a JSON object, read only for the next two.
        json_caption: its field that is the caption; where a sample has none, ``caption_ext`` is taken.
        json_labels: its fields that become labels.
        class_ext: UTF-8 text that becomes the label ``class``, a number where it is one; None takes none.
    """

    image_exts: Annotated[tuple[Extension, ...], Field(min_length=1)] = tuple(ext[1:] for ext in IMAGE_EXTENSIONS)
    caption_ext: Extension | None = "txt"
    json_ext: Extension = "json"
    json_caption: str | None = None
    json_labels: tuple[str, ...] = ()
    class_ext: Extension | None = "cls"


class WebDataset(Source):
    """Files *.tar in a folder and its subfolders, or one such file, whose members are grouped as WebDataset does.

    Members in a row whose names are the same up to the first dot are one sample. Ids are the tar's path without
    ``.tar``, then that name. A tar is read once, its headers only; a sample is read by its byte ranges.
    """

    name: ClassVar[str] = "webdataset"
    Config: ClassVar[type[SourceConfig]] = WebDatasetConfig
    config: WebDatasetConfig

    @cached_property
    def _place(self) -> tuple[Store, str | None]:
        """The folder of the tars, and the name of the one that is taken, if ``path`` is a tar."""
        path = self.config.path or ""
        if not path.endswith(_TARS) or ((store := Store(path)).local and os.path.isdir(store.root)):
            return open_folder(path, self.name), None
        folder, slash, name = path.rpartition("/")
        return open_folder(folder or slash or ".", self.name), name

    def items(self, limit: int | None = None) -> Iterator[SourceItem]:
        """Stream the listing, tar by tar in the order of their keys.

        Samples that cannot be read (links, names with ``..``, no image) are listed; reading them says why.

        Raises:
            UsageError: no path is given.
            DataError: no tars, or one is gzipped, truncated or damaged, or gives a sample the same extension twice.
            StorageError: the folder may not be listed.
        """
        return first_by_id(self._all(), smaller(limit, self.config.limit))

    def read(self, item: SourceItem) -> RawSample:
        """Raises ``OSError`` for a sample that is not what the configuration says, with the reason."""
        c, store = self.config, self._place[0]
        key, parts = parse_address(item.uri.removeprefix(store.url("")))
        image = next((ext for ext in c.image_exts if ext in parts), None)
        if image is None:
            raise OSError(f"the sample has no image; looked for .{', .'.join(c.image_exts)} (source.image_exts)")
        for ext in parts.keys() & {c.caption_ext, c.class_ext}:
            check_length(parts[ext].size, f"its .{ext}")
        data = read_parts(store, key, parts)
        about = _object(data[c.json_ext], f"its .{c.json_ext}") if self._reads_json and c.json_ext in data else {}
        caption = self._caption(about) or _text(data, c.caption_ext)
        return RawSample(image=data[image], caption=caption, labels=self._labels(about, data))

    @property
    def _reads_json(self) -> bool:
        return self.config.json_caption is not None or bool(self.config.json_labels)

    def _caption(self, about: Mapping[str, Any]) -> str | None:
        """The caption from the JSON, if it is asked for and there."""
        field = self.config.json_caption
        value = about.get(field) if field else None
        if value is None:
            return None
        if not isinstance(value, str):
            raise OSError(f"its .{self.config.json_ext} has {value!r:.60} as '{field}'; a caption is text")
        check_length(len(value.encode("utf-8", "replace")), f"'{field}' of its .{self.config.json_ext}")
        return _writable(value.strip(), f"'{field}'") or None

    def _labels(self, about: Mapping[str, Any], data: Mapping[str, bytes]) -> dict[str, Any]:
        c = self.config
        labels = {name: _writable(about[name], f"'{name}'") for name in c.json_labels if name in about}
        if (text := _text(data, c.class_ext)) is not None:
            labels["class"] = int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else text
        return labels

    def _all(self) -> Iterator[SourceItem]:
        store, only = self._place
        if only is None:
            found = (entry for _, entries in folders(store) for entry in entries if entry.key.endswith(_TARS))
            tars = sorted(found, key=lambda entry: entry.key)
        else:
            tars = [entry for entry in (store.entry(only),) if entry]
        if not tars:
            raise DataError(f"no tars at '{self.config.path}'; source.path must be a folder with *.tar in it, or a tar")
        for tar in tars:
            yield from self._in_tar(tar, store)

    def _in_tar(self, tar: Entry, store: Store) -> Iterator[SourceItem]:
        url, prefix = store.url(tar.key), tar.key.removesuffix(".tar")
        for key, group in groupby(_named(members(store, tar.key)), lambda named: named[0]):
            parts: dict[str, Member] = {}
            for _, ext, member in group:
                if ext in parts:
                    raise DataError(
                        f"{url} has {parts[ext].name!r} and then {member.name!r}, so two samples would become one, "
                        f"{key!r}; names must be unique up to their first dot"
                    )
                parts[ext] = member
            uri = address(url, self._taken(parts))
            yield SourceItem(f"{prefix}/{key}", uri, f"{tar.etag}#{uri.rpartition('#')[2]}")

    def _taken(self, parts: Mapping[str, Member]) -> dict[str, Member]:
        """What is read of a sample, its image last."""
        c = self.config
        image = next((ext for ext in c.image_exts if ext in parts), None)
        wanted = (c.caption_ext, c.class_ext, c.json_ext if self._reads_json else None)
        beside = [ext for ext in wanted if ext and ext != image]
        return {ext: parts[ext] for ext in (*beside, *([image] if image else [])) if ext in parts}


def _named(found: Iterator[Member]) -> Iterator[tuple[str, str, Member]]:
    """``(key, extension, member)`` of what WebDataset takes for parts of samples."""
    for member in found:
        folder, slash, base = member.name.rpartition("/")
        stem, dot, ext = base.partition(".")
        if stem and dot and member.kind != "folder" and not _META.match(member.name):
            yield f"{folder}{slash}{stem}", ext.lower(), member


def _text(data: Mapping[str, bytes], ext: str | None) -> str | None:
    """The text of the member with that extension, if the sample has one; an empty one is none."""
    try:
        return data.get(ext or "", b"").decode("utf-8-sig").strip() or None
    except UnicodeDecodeError as error:
        raise OSError(f"its .{ext} is not UTF-8 text: {error}") from error


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(data, parse_constant=lambda _: None)  # pandas writes what is missing as NaN
    except (ValueError, RecursionError) as error:
        raise OSError(f"{what} is broken JSON: {error}") from error
    if not isinstance(value, dict):
        raise OSError(f"{what} holds a {type(value).__name__}; it should be a JSON object")
    return value


def _writable(value: Any, what: str) -> Any:
    """``value``, if it can be written as JSON again."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise OSError(f"{what} of its JSON cannot be written again: {error}") from error
    return value
