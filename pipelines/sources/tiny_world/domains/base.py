"""The domain contract: who there is (an identity's traits), and how one of its pictures is drawn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

from PIL import Image

from pipelines.sources.tiny_world.draws import Draws
from pipelines.sources.tiny_world.pen import Ink

T = TypeVar("T")


@dataclass(frozen=True)
class Subject:
    """The foreground of one picture, before scene and style.

    Attributes:
        layer: RGBA, opaque where the subject is and transparent elsewhere.
        shade: L, light and shadow over the layer: 128 changes nothing, less darkens, more lightens.
        phrase: the subject in a sentence (``a person with red hair and glasses``).
        words: every attribute that a caption can name, those of ``phrase`` included.
        cast: L, any size, the share of the scene's light that the subject's shadow leaves; None for no shadow.
    """

    layer: Image.Image
    shade: Image.Image
    phrase: str
    words: tuple[str, ...] = field(default_factory=tuple)
    cast: Image.Image | None = None


class Domain(ABC, Generic[T]):
    """One kind of concept: a file or folder under ``domains/`` whose class has that ``name``.

    Attributes:
        classes: the words for what is in its pictures (``person``), each the class of some identities.
    """

    name: ClassVar[str]
    classes: ClassVar[tuple[str, ...]]

    def class_of(self, identity: int) -> str:
        """The class of identity number ``identity``: in turn, so that any first few have nearly equal shares.

        It depends on the number alone, never on which classes somebody selects: a name always means one thing.
        """
        return self.classes[identity % len(self.classes)]

    @abstractmethod
    def traits(self, draws: Draws) -> T:
        """What makes an identity this identity, from its own stream."""

    def traits_of(self, kind: str, draws: Draws) -> T:
        """The same for an identity of class ``kind``; a domain with several classes overrides it."""
        return self.traits(draws)

    @abstractmethod
    def draw(self, traits: T, draws: Draws, side: int, ink: Ink) -> Subject:
        """One picture of it on a layer of ``side`` pixels; what changes between pictures comes from ``draws``."""


AnyDomain = Domain[Any]
