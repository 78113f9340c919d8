"""What the recipe says of captions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from e4t_core.backbones.captioner import CaptionerConfig
from e4t_core.backbones.config import ClipConfig
from pipelines.stages.base import StageConfig

Template = Annotated[str, Field(pattern=r"^[^{}]*\{\}[^{}]*$")]
Word = Annotated[str, Field(min_length=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Mode = Literal["template", "source", "captioner", "class", "labels", "attributes"]
Coarse = Literal["template", "source", "captioner", "class"]
Fine = Literal["none", "labels", "attributes"]

_PARTS: Mapping[Mode, tuple[Coarse, Fine]] = {
    "template": ("template", "none"),
    "source": ("source", "none"),
    "captioner": ("captioner", "none"),
    "class": ("class", "none"),
    "labels": ("template", "labels"),
    "attributes": ("template", "attributes"),
}
_ORIGINAL = ("mode", "missing", "templates", "concept", "seed")


class CaptionConfig(StageConfig):
    """Where captions come from.

    Attributes:
        mode: ``template`` draws one of ``templates`` per image; ``source`` takes the source's own sentence;
            ``captioner`` lets a model describe the image; ``class`` is a template with the name in label ``class``;
            ``labels`` and ``attributes`` are a template with fine words from there.
        missing: what happens to an image that lacks what the mode takes from the source (sentence, template, labels):
            ``quarantine`` it, or do without: draw the sentence from ``templates``, leave out the words.
        templates: sentences with one ``{}`` for the concept.
        concept: what fills the gap: the coarse word of the domain with its article (``a face``, ``a cat``).
        seed: of the draw; an image keeps its template as long as seed and templates stay.
        coarse, fine: where the sentence and the words after it come from, in place of what ``mode`` says of them:
            ``{coarse: captioner, fine: labels}`` gives ``a photo of a woman, wearing eyeglasses, black hair``.
        captioner: the model that describes images.
        nouns: what its sentences may call the concept, most wanted first. The gap of a sentence's template is at the
            first that it has; for a sentence with none a template is drawn, and ``template_drawn`` says so.
        labels: the source's labels whose words are fine words.
        attributes: the list with the phrases of labels and the attributes to look for: a file of ``attributes/``
            (``face``, ``cat``), or the path or URI of such a YAML file.
        clip: the model that looks for attributes; by default the recipe's ``clip``.
        threshold: how sure it must be of an attribute: its share of the softmax over presence and absence.
        min_margin: by how much the best of attributes that exclude each other must lead, in shares of their softmax.
        max_chars: longer captions are quarantined; by default 1000, and in modes ``template`` and ``source`` none.
    """

    mode: Mode = "template"
    missing: Literal["quarantine", "template"] = "quarantine"
    templates: Annotated[tuple[Template, ...], Field(min_length=1)] = (
        "a photo of {}",
        "a picture of {}",
        "a portrait of {}",
        "{}",
    )
    concept: str = "a face"
    seed: int = 0
    coarse: Coarse | None = None
    fine: Fine | None = None
    captioner: CaptionerConfig | None = None
    nouns: tuple[Word, ...] = ("woman", "man", "person", "face")
    labels: Annotated[tuple[Word, ...], Field(min_length=1)] = ("attributes",)
    attributes: str = "face"
    clip: ClipConfig | None = None
    threshold: Share = 0.7
    min_margin: Share = 0.2
    max_chars: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _named(self) -> CaptionConfig:
        if self.parts[0] == "captioner" and self.captioner is None:
            raise ValueError("a captioner's sentences need captioner.path: a hub id, a local folder or an s3:// URI")
        return self

    @property
    def parts(self) -> tuple[Coarse, Fine]:
        """Where sentence and words come from."""
        coarse, fine = _PARTS[self.mode]
        return self.coarse or coarse, self.fine or fine

    @property
    def describer(self) -> CaptionerConfig | None:
        """The captioner, if it is used."""
        return self.captioner if self.parts[0] == "captioner" else None

    @property
    def reads_list(self) -> bool:
        """Whether the list of attributes is used."""
        return self.parts[0] == "class" or self.parts[1] != "none"

    @property
    def original(self) -> bool:
        """Whether it asks for nothing but what the stage could do at first: such captions stay as they were."""
        later = (self.coarse, self.fine, self.max_chars)
        return self.mode in ("template", "source") and later == (None, None, None)

    def dump(self) -> dict[str, Any]:
        """Without the later fields where none of them counts: recipes keep their hashes, and stores their data."""
        full = super().dump()
        return {k: v for k, v in full.items() if k in ("resources", *_ORIGINAL)} if self.original else full
