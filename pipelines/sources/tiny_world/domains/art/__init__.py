"""``art``: paintings, prints and windows. The concept is the style of art; what is painted changes."""

from __future__ import annotations

from typing import ClassVar

from pipelines.sources.tiny_world.domains.art import canvas
from pipelines.sources.tiny_world.domains.art.contents import MOTIFS, compose
from pipelines.sources.tiny_world.domains.art.traits import Traits, draw_traits
from pipelines.sources.tiny_world.domains.base import Domain, Subject
from pipelines.sources.tiny_world.draws import Draws
from pipelines.sources.tiny_world.pen import Ink, Pen


class Art(Domain[Traits]):
    """Styles of art that differ in colours, technique, strokes, ground, outlines and composition."""

    name: ClassVar[str] = "art"
    classes: ClassVar[tuple[str, ...]] = ("painting",)

    def traits(self, draws: Draws) -> Traits:
        return draw_traits(draws)

    def draw(self, traits: Traits, draws: Draws, side: int, ink: Ink) -> Subject:
        hung = canvas.Canvas(canvas.draw_pose(draws))
        roles = canvas.plan(traits, compose(hung.pose.motif, traits, draws), side * 3 // 8, draws)
        pen = Pen(side, ink)
        canvas.hang(pen, hung, canvas.paint(traits, roles, draws), roles)
        words = (*traits.words(), MOTIFS[hung.pose.motif][0])
        return Subject(pen.image, canvas.draw_shade(hung, side // 4), phrase(words), words)


def phrase(words: tuple[str, ...]) -> str:
    """``a mosaic in blue and gold``."""
    return f"{words[0]} in {words[1]}"
