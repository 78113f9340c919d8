"""``object``: things of many classes, the ImageNet of this world."""

from __future__ import annotations

from typing import ClassVar

from pipelines.sources.tiny_world.domains.base import Domain, Subject
from pipelines.sources.tiny_world.domains.object.kinds import KINDS
from pipelines.sources.tiny_world.domains.object.thing import Thing, draw_pose
from pipelines.sources.tiny_world.domains.object.traits import Traits, draw_traits, phrase, words
from pipelines.sources.tiny_world.draws import Draws
from pipelines.sources.tiny_world.light import ground_shadow, relief
from pipelines.sources.tiny_world.pen import Ink, Pen


class Object(Domain[Traits]):
    """Things that differ in class, proportions, details, colours and pattern."""

    name: ClassVar[str] = "object"
    classes: ClassVar[tuple[str, ...]] = tuple(KINDS)

    def traits(self, draws: Draws) -> Traits:
        return self.traits_of(draws.choice(self.classes), draws)

    def traits_of(self, kind: str, draws: Draws) -> Traits:
        return draw_traits(kind, KINDS[kind], draws)

    def draw(self, traits: Traits, draws: Draws, side: int, ink: Ink) -> Subject:
        kind, pose = KINDS[traits.kind], draw_pose(draws, KINDS[traits.kind].stands)
        thing = Thing(traits, pose)
        pen = Pen(side, ink, place=thing.place)
        kind.draw(pen, thing)
        cast = ground_shadow(pen.image, pose.light) if kind.stands else None
        return Subject(pen.image, relief(pen.image, pose.light), phrase(traits), words(traits), cast)
