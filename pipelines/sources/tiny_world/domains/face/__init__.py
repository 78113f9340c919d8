"""``face``: people from the shoulders up."""

from __future__ import annotations

from typing import ClassVar

from pipelines.sources.tiny_world.domains.base import Domain, Subject
from pipelines.sources.tiny_world.domains.face import features, hair, hats, head
from pipelines.sources.tiny_world.domains.face.traits import Traits, draw_traits
from pipelines.sources.tiny_world.draws import Draws
from pipelines.sources.tiny_world.pen import Ink, Pen


class Face(Domain[Traits]):
    """People who differ in face, skin, hair, eyes, brows, nose, mouth, beard, glasses, hats and earrings."""

    name: ClassVar[str] = "face"
    classes: ClassVar[tuple[str, ...]] = ("person",)

    def traits(self, draws: Draws) -> Traits:
        return draw_traits(draws)

    def draw(self, traits: Traits, draws: Draws, side: int, ink: Ink) -> Subject:
        who = head.Head(traits, head.draw_pose(draws))
        body = Pen(side, ink, place=who.place_body)
        pen = body.at(who.place)
        _behind(body, pen, who)
        pen.shape(who.outline(), traits.skin)
        _features(pen, who)
        _above(pen, who)
        words = traits.words()
        return Subject(pen.image, head.draw_shade(who, side // 4), phrase(words), (*words, who.pose.mood))


def _behind(body: Pen, pen: Pen, who: head.Head) -> None:
    covered = who.traits.hat == "headscarf"
    if not covered and who.traits.hair in hair.BACK:
        hair.BACK[who.traits.hair](pen, who)
    head.draw_body(body, who)
    if not covered:
        head.draw_ears(pen, who)
        head.draw_earrings(pen, who)


def _features(pen: Pen, who: head.Head) -> None:
    features.draw_skin_marks(pen, who)
    features.draw_eyes(pen, who)
    features.draw_beard(pen, who)
    features.draw_mouth(pen, who)
    features.draw_nose(pen, who)
    features.draw_moustache(pen, who)


def _above(pen: Pen, who: head.Head) -> None:
    t = who.traits
    if t.hat != "headscarf":
        hair.FRONT[t.hair](pen, who)
    features.draw_brows(pen, who)
    if t.hat != "none":
        hats.HATS[t.hat](pen, who)
    features.draw_glasses(pen, who)


def phrase(words: tuple[str, ...]) -> str:
    """``a person with`` the two most telling attributes."""
    return f"a person with {' and '.join(words[:2])}"
