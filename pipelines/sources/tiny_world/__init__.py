"""``tiny_world``: a small procedural world that a small stack can learn. :func:`render` draws one picture."""

from pipelines.sources.tiny_world.render import SCENE_WORDS, STYLE_WORDS, VERSION, Picture, render, template
from pipelines.sources.tiny_world.source import TinyWorld, TinyWorldConfig

__all__ = ["SCENE_WORDS", "STYLE_WORDS", "VERSION", "Picture", "TinyWorld", "TinyWorldConfig", "render", "template"]
