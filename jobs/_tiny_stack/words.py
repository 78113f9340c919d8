"""The texts that can stand beside a picture, and what each of them claims about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jobs._tiny_stack.config import TextMix
from pipelines.sources.tiny_world import SCENE_WORDS, STYLE_WORDS, template

_NO_PLACE = "a plain wall"
"""What a text about the place alone calls the scene that sentences leave out."""


@dataclass(frozen=True)
class Label:
    """What is known about one picture.

    Attributes:
        domain, identity, style, scene: its coordinates in the world.
        caption: the whole caption; ``phrase``: the subject as its sentence names it.
        attributes: words for the identity and its expression.
        class_words: what the subject can be called without its attributes.
    """

    domain: str
    identity: int
    style: str
    scene: str
    caption: str
    phrase: str
    attributes: tuple[str, ...]
    class_words: tuple[str, ...]


@dataclass(frozen=True)
class Text:
    """A text and its claims: a picture is rightly described by it if all of them are among the picture's."""

    text: str
    claims: frozenset[str]


def phrase_of(caption: str, sentence: str) -> str:
    """The subject (``a person with red hair``) of a caption that begins with ``sentence.format(subject)``."""
    before, after = sentence.split("{}")
    subject = caption.removeprefix(before)
    return subject.split(after or ", ")[0]


def style_alone(style: str) -> str:
    """``a pencil sketch``."""
    return STYLE_WORDS[style].removesuffix(" of {}")


def scene_alone(scene: str) -> str:
    """``the city at night``."""
    return SCENE_WORDS[scene].partition(" ")[2] or _NO_PLACE


def claims(label: Label) -> frozenset[str]:
    """Everything that is true of a picture."""
    return _where(label) | {_class(label), *label.attributes}


def draw_text(label: Label, mix: TextMix, rng: np.random.Generator) -> Text:
    """One text for a picture, of a kind drawn from ``mix``."""
    kinds = {kind: weight for kind, weight in mix.dump().items() if weight}
    shares = np.array(list(kinds.values())) / sum(kinds.values())
    kind = list(kinds)[int(rng.choice(len(kinds), p=shares))]
    return _KINDS[kind](label, rng)


def draw_texts(labels: Sequence[Label], mix: TextMix, rng: np.random.Generator) -> list[Text]:
    """One text for each picture."""
    return [draw_text(label, mix, rng) for label in labels]


def _where(label: Label) -> frozenset[str]:
    return frozenset((f"style:{label.style}", f"scene:{label.scene}"))


def _class(label: Label) -> str:
    return f"class:{label.class_words[0]}"


def _caption(label: Label, rng: np.random.Generator) -> Text:
    return Text(label.caption, claims(label))


def _phrase(label: Label, rng: np.random.Generator) -> Text:
    named = [word for word in label.attributes if word in label.phrase]
    return Text(template(label.style, label.scene).format(label.phrase), _where(label) | {_class(label), *named})


def _sentence(label: Label, rng: np.random.Generator) -> Text:
    word = label.class_words[int(rng.integers(len(label.class_words)))]
    return Text(template(label.style, label.scene).format(word), _where(label) | {_class(label)})


def _attributes(label: Label, rng: np.random.Generator) -> Text:
    order = rng.permutation(len(label.attributes))
    return Text(", ".join(label.attributes[i] for i in order), frozenset(label.attributes))


def _style(label: Label, rng: np.random.Generator) -> Text:
    return Text(style_alone(label.style), frozenset((f"style:{label.style}",)))


def _scene(label: Label, rng: np.random.Generator) -> Text:
    return Text(scene_alone(label.scene), frozenset((f"scene:{label.scene}",)))


def _place(label: Label, rng: np.random.Generator) -> Text:
    """``an oil painting of the beach``; on a plain wall there is no place to name."""
    if not SCENE_WORDS[label.scene]:
        return _style(label, rng)
    return Text(STYLE_WORDS[label.style].format(scene_alone(label.scene)), _where(label))


def _empty(label: Label, rng: np.random.Generator) -> Text:
    return Text("", frozenset())


_KINDS: dict[str, Any] = {
    "caption": _caption, "phrase": _phrase, "sentence": _sentence, "attributes": _attributes,
    "style": _style, "scene": _scene, "place": _place, "empty": _empty,
}  # fmt: skip
