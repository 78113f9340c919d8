"""``cat``: sitting cats."""

from __future__ import annotations

from typing import ClassVar

from pipelines.sources.tiny_world.domains.base import Domain, Subject
from pipelines.sources.tiny_world.domains.cat import body, coat, features
from pipelines.sources.tiny_world.domains.cat.traits import Traits, draw_traits
from pipelines.sources.tiny_world.draws import Draws
from pipelines.sources.tiny_world.pen import Ink, Pen


class Cat(Domain[Traits]):
    """Cats that differ in fur, markings, head, ears, eyes, nose, whiskers, tail and what they wear."""

    name: ClassVar[str] = "cat"
    classes: ClassVar[tuple[str, ...]] = ("cat",)

    def traits(self, draws: Draws) -> Traits:
        return draw_traits(draws)

    def draw(self, traits: Traits, draws: Draws, side: int, ink: Ink) -> Subject:
        who = body.Cat(traits, body.draw_pose(draws))
        low = Pen(side, ink, place=who.place_body)
        pen = low.at(who.place)
        body.draw_tail(low, who)
        body.draw_body(low, who)
        features.draw_neckwear(low, who)
        _head(pen, who)
        words = _words(who)
        return Subject(pen.image, body.draw_shade(who, side // 4), phrase(words), (*words, who.pose.mood))


def _head(pen: Pen, who: body.Cat) -> None:
    body.draw_ears(pen, who)
    body.draw_tufts(pen, who)
    outline = who.outline()
    pen.shape(outline, who.traits.fur, 0)
    with pen.inside(outline) as inside:
        coat.mark_head(inside, who.traits, who.turn)
    pen.outline(outline, who.traits.fur)
    features.draw_muzzle(pen, who)
    features.draw_eyes(pen, who)
    features.draw_whiskers(pen, who)


def _words(who: body.Cat) -> tuple[str, ...]:
    """The cat's words; shut eyes have no colour."""
    first, *rest = who.traits.words()
    eyes = {0: (), 1: (), 2: (who.traits.eye_words(),)}[sum(lid > 0 for lid in who.pose.lids)]
    return (first, *eyes, *rest)


def phrase(words: tuple[str, ...]) -> str:
    """``a cat with`` its most telling attribute."""
    return f"a cat with {words[0]}"
