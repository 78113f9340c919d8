"""``wikiart``: paintings, one folder a style."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar, Literal

from e4t_core.errors import DataError, UsageError, nearest
from e4t_core.storage import Entry, Store
from e4t_core.texts import read_text
from pipelines.sources._listing import first_by_id, folders, is_image, open_folder, smaller
from pipelines.sources._text import csv_rows
from pipelines.sources.base import RawSample, Source, SourceConfig, SourceItem

_FILE_COLUMNS = ("filename", "file", "path")
_LABELS = ("artist", "genre", "description", "subset")
"""Columns of a csv with a header that become labels."""
_SHOWN = 5
_log = logging.getLogger(__name__)


class WikiartConfig(SourceConfig):
    """Which paintings are taken.

    Attributes:
        csv: path or URI of a list: ``style_train.csv`` as published (``Impressionism/claude-monet_x.jpg,12``, no
            header), or a csv with a header that has ``filename``; only what it lists is taken, and its ``artist``,
            ``genre``, ``description`` and ``subset`` become labels. Without it, all.
        styles: folders to take; all by default.
        on_mismatch: what happens to files that are listed and missing: ``error``, or ``skip`` them and log it.
    """

    csv: str | None = None
    styles: tuple[str, ...] | None = None
    on_mismatch: Literal["error", "skip"] = "error"


class Wikiart(Source):
    """Files Impressionism/claude-monet_water-lilies-1906.jpg, one folder a style, with a csv list if one is given.

    Ids are paths without extension. Labels: ``style`` and ``artist``, in words. The caption names both; its template
    has the gap where the style is named.
    """

    name: ClassVar[str] = "wikiart"
    Config: ClassVar[type[SourceConfig]] = WikiartConfig
    config: WikiartConfig

    @cached_property
    def _store(self) -> Store:
        return open_folder(self.config.path, self.name)

    def items(self, limit: int | None = None) -> Iterator[SourceItem]:
        """Stream the listing; files that are listed and missing are raised at its end.

        Raises:
            UsageError: no path is given, or no style has that name.
            DataError: no paintings, or the csv is missing, malformed, or lists what is not there.
        """
        return first_by_id(self._all(), smaller(limit, self.config.limit))

    def read(self, item: SourceItem) -> RawSample:
        style, artist = item.labels["style"], item.labels.get("artist")
        by = f" by {artist}" if artist else ""
        return RawSample(
            image=self._store.read(item.uri.removeprefix(self._store.url(""))),
            caption=f"a painting in the style of {style}{by}",
            template=f"a painting in the style of {{}}{by}",
        )

    def _all(self) -> Iterator[SourceItem]:
        listed = read_list(self.config.csv) if self.config.csv else None
        missing, styles = set(listed or ()), set()
        for folder, entries in folders(self._store):
            images = [entry for entry in entries if is_image(entry.key)]
            if not images or not folder or "/" in folder:
                continue
            styles.add(folder)
            for entry in images:
                missing.discard(entry.key)
                if self._wanted(folder, entry.key, listed):
                    yield self._item(folder, entry, (listed or {}).get(entry.key, {}))
        self._judge(styles, missing)

    def _wanted(self, style: str, key: str, listed: Mapping[str, Any] | None) -> bool:
        return (self.config.styles is None or style in self.config.styles) and (listed is None or key in listed)

    def _item(self, style: str, entry: Entry, about: Mapping[str, str]) -> SourceItem:
        stem = entry.key.rpartition(".")[0]
        artist, underscore, _ = stem.rpartition("/")[2].partition("_")
        labels = {
            "style": style.replace("_", " "),
            **({"artist": artist.replace("-", " ")} if underscore else {}),
            **about,
        }
        return SourceItem(stem, self._store.url(entry.key), entry.etag, labels)

    def _judge(self, styles: set[str], missing: set[str]) -> None:
        """Raise or log what is wrong with the whole."""
        c = self.config
        if not styles:
            raise DataError(
                f"no 'Style/artist_title.jpg' in '{c.path}'; source.path must be the folder that holds the styles"
            )
        for style in c.styles or ():
            if style not in styles:
                raise UsageError(f"source.styles: '{c.path}' has no style '{style}'{nearest(style, sorted(styles))}")
        if missing:
            some = sorted(missing)[:_SHOWN]
            text = f"'{c.csv}' lists {len(missing)} files that are not in '{c.path}': {', '.join(some)}"
            if c.on_mismatch == "error":
                raise DataError(f"{text}. Complete the folder, correct the list, or set source.on_mismatch=skip")
            _log.warning("%s; skipped", text)


def read_list(uri: str) -> Mapping[str, Mapping[str, str]]:
    """File below the dataset's folder -> labels from the list.

    Raises:
        DataError: it is neither of the two formats.
    """
    text = io.StringIO(read_text(uri, "source.csv"))  # not by lines: descriptions hold line breaks
    rows = ((number, row) for number, row in csv_rows(text, f"source.csv '{uri}'") if row)
    _, header = next(rows)
    names = [name.strip().lower() for name in header]
    column = next((names.index(name) for name in _FILE_COLUMNS if name in names), None)
    if column is None and not is_image(header[0]):
        raise DataError(
            f"source.csv '{uri}' starts with '{','.join(header)[:60]}'; it should start with 'Style/file.jpg,number' "
            f"as published, or with a header that names one of {', '.join(_FILE_COLUMNS)}"
        )
    if column is None:
        return {row[0]: {} for row in (header, *(row for _, row in rows))}
    wanted = {names.index(name): name for name in _LABELS if name in names}
    out = {}
    for number, row in rows:
        if len(row) != len(names):
            raise DataError(f"source.csv '{uri}', line {number}: {len(row)} columns, and the header has {len(names)}")
        out[row[column]] = {name: row[i] for i, name in wanted.items() if row[i]}
    return out
