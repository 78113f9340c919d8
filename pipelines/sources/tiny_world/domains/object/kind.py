"""What a class of things is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.sources.tiny_world.pen import Pen

if TYPE_CHECKING:
    from pipelines.sources.tiny_world.domains.object.thing import Thing


@dataclass(frozen=True)
class Kind:
    """A class of things, such as mugs.

    Attributes:
        draw: draws one in local coordinates: it fills about -1 to 1 each way and stands on y = 1.
        patterned: it can be striped, dotted or checkered: it draws its main surface with ``Thing.body``.
        colors: names of the colours it comes in; None for any.
        forms: words for one that is stretched sideways, and upwards; None if it always has one shape.
        stands: on the ground; else it is in the air.
    """

    draw: Callable[[Pen, Thing], None]
    patterned: bool = True
    colors: tuple[str, ...] | None = None
    forms: tuple[str, str] | None = None
    stands: bool = True
