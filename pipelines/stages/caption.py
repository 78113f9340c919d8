"""``caption``: a sentence per image, and the same sentence with a gap where the concept is named."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from e4t_core.schema import Sample, decode_json, encode_json
from pipelines.stages.base import Bad, Stage, StageConfig

Template = Annotated[str, Field(pattern=r"^[^{}]*\{\}[^{}]*$")]


class CaptionConfig(StageConfig):
    """Where captions come from.

    Attributes:
        mode: ``template`` draws one of ``templates`` per image; ``source`` takes the source's own sentence.
        missing: in mode ``source``, what happens to an image without sentence or template: ``quarantine`` it, or
            draw the missing part from ``templates``.
        templates: sentences with one ``{}`` for the concept.
        concept: what fills the gap: the coarse word of the domain with its article (``a face``, ``a cat``).
        seed: of the draw; an image keeps its template as long as seed and templates stay.
    """

    mode: Literal["template", "source"] = "template"
    missing: Literal["quarantine", "template"] = "quarantine"
    templates: Annotated[tuple[Template, ...], Field(min_length=1)] = (
        "a photo of {}",
        "a picture of {}",
        "a portrait of {}",
        "{}",
    )
    concept: str = "a face"
    seed: int = 0


class Caption(Stage):
    """``caption.json``: ``{"text", "template"}``."""

    name: ClassVar[str] = "caption"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("ingest",)
    writes: ClassVar[tuple[str, ...]] = ("caption.json",)
    Config: ClassVar[type[StageConfig]] = CaptionConfig
    config: CaptionConfig

    def __call__(self, batch: Sequence[Sample]) -> list[Mapping[str, bytes] | Bad]:
        return [self._one(sample) for sample in batch]

    def _one(self, sample: Sample) -> Mapping[str, bytes] | Bad:
        key = sample["__key__"]
        if self.config.mode == "template":
            return self._written(None, self._drawn(key))
        meta = decode_json(sample["meta.json"], f"meta.json of {key}")
        text, template = meta["caption"], meta["template"]
        if template and template.count("{}") != 1:
            return Bad("bad_template", f"the source's template '{template}' needs one {{}} where the concept is named")
        if not template and self.config.missing == "quarantine":
            return _incomplete(text)
        return self._written(text, template or self._drawn(key))

    def _written(self, text: str | None, template: str) -> dict[str, bytes]:
        """A sentence that the source does not have is its template, filled."""
        text = text or template.replace("{}", self.config.concept)
        return {"caption.json": encode_json({"text": text, "template": template})}

    def _drawn(self, key: str) -> str:
        """A template that depends on the sample and the seed alone, not on its neighbours."""
        digest = hashlib.sha256(f"{self.config.seed}:{key}".encode()).digest()
        return self.config.templates[int.from_bytes(digest[:8]) % len(self.config.templates)]


def _incomplete(text: str | None) -> Bad:
    advice = "add one, or set stages.caption.missing=template"
    if not text:
        return Bad("no_caption", f"the source has no sentence about it; {advice}")
    return Bad("no_template", f"the source has no template that says where '{text}' names the concept; {advice}")
