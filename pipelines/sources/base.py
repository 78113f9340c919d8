"""The source contract: list stable ids without decoding anything; read one sample's bytes when asked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from e4t_core.config import Config

PART = "part"
"""The label of a mix that says which of its datasets a sample is of."""


class SourceConfig(Config):
    """Fields every source has; a source adds its own.

    Attributes:
        name: the source's file name under ``pipelines/sources/``.
        path: folder or URI of the dataset (sources that generate have none).
        limit: take only the first ``limit`` items in id order.
    """

    name: str
    path: str | None = None
    limit: int | None = None


@dataclass(frozen=True)
class SourceItem:
    """One listed sample, not yet opened.

    Attributes:
        id: stable over runs, machines and appended data; unique in the source.
        uri: where its bytes are (a name of the source's own for generated data).
        etag: changes when the bytes change (ETag, or size and modification time).
        labels: JSON values known from the listing alone (``identity``, ``class``, ``split``...).
    """

    id: str
    uri: str
    etag: str
    labels: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class RawSample:
    """What a source holds for one item.

    Attributes:
        image: encoded image file bytes, as they are in the source.
        mask: encoded 8-bit mask of the same size, if the source has one.
        caption: the source's own sentence about the image.
        template: the same sentence with ``{}`` where the concept is named.
        labels: added to the item's labels.
    """

    image: bytes
    mask: bytes | None = None
    caption: str | None = None
    template: str | None = None
    labels: Mapping[str, Any] = field(default_factory=dict)


class Source(ABC):
    """A dataset. The constructor stores the configuration and touches nothing."""

    name: ClassVar[str]
    Config: ClassVar[type[SourceConfig]]
    takes_path: ClassVar[bool] = True
    """False for sources that generate their data."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def items(self, limit: int | None = None) -> Iterator[SourceItem]:
        """Stream the listing in any order; no decoding, memory independent of the dataset's size."""

    @abstractmethod
    def read(self, item: SourceItem) -> RawSample:
        """The bytes of one item. Raises ``OSError`` if it vanished or cannot be read."""
