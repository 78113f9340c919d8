"""``caption``: a sentence per image, and the same sentence with a gap where the concept is named.

Captions of the Taming Encoder (section 3.3) are a coarse sentence and fine attributes, joined.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from e4t_core.backbones import ClipConfig, clip_weights_fingerprint, load_clip
from e4t_core.backbones.attributes import AttributeList, ZeroShot
from e4t_core.backbones.captioner import Captioner, captioner_weights_fingerprint, load_captioner
from e4t_core.record import fingerprint
from e4t_core.schema import Sample, decode_json, encode_json
from pipelines.english import with_article
from pipelines.stages._caption_config import CaptionConfig
from pipelines.stages._decode import Fault
from pipelines.stages._encode import decode, images, not_finite
from pipelines.stages._sentences import attribute_list, gap_at, joined, spoken
from pipelines.stages.base import Bad, Stage, StageConfig

_MAX_CHARS = 1000


class _Coarse(NamedTuple):
    """A sentence, None if it is the template filled, and whether that template had to be drawn."""

    text: str | None
    template: str
    drawn: bool = False


class Caption(Stage):
    """``caption.json``: ``{"text", "template"}``; beyond the first two modes also ``"attributes"``, the fine words.

    They are not in the template: the concept stands for them.
    """

    name: ClassVar[str] = "caption"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("ingest",)
    writes: ClassVar[tuple[str, ...]] = ("caption.json",)
    Config: ClassVar[type[StageConfig]] = CaptionConfig
    config: CaptionConfig
    captioner: Captioner
    zero_shot: ZeroShot
    words: AttributeList

    def settings(self) -> dict[str, Any]:
        c, plain = self.config, super().settings()
        if c.original:
            return plain
        about = {name: plain[name] for name in ("missing", "templates", "concept", "seed")}
        about |= {"coarse": c.parts[0], "fine": c.parts[1], "max_chars": self._max_chars}
        if c.describer:
            about["captioner"] = {k: v for k, v in c.describer.dump().items() if k != "path"}
            about["nouns"] = plain["nouns"]
        if c.reads_list:
            about["attributes"] = fingerprint(attribute_list(c.attributes).dump())
        if c.parts[1] == "labels":
            about["labels"] = plain["labels"]
        if c.parts[1] == "attributes":
            about |= {"threshold": c.threshold, "min_margin": c.min_margin, "dtype": self._clip.dtype}
        return about

    def weights(self) -> str:
        c, found = self.config, {}
        if c.describer:
            found["captioner"] = captioner_weights_fingerprint(c.describer)
        if c.parts[1] == "attributes":
            found["clip"] = clip_weights_fingerprint(self._clip)
        return fingerprint(found) if found else ""

    def setup(self) -> None:
        c, device = self.config, self.config.resources.device
        if c.reads_list:
            self.words = attribute_list(c.attributes)
        if c.describer:
            self.captioner = load_captioner(c.describer, device)
        if c.parts[1] == "attributes":
            self.zero_shot = ZeroShot(load_clip(self._clip, device), self.words, c.threshold, c.min_margin)

    @property
    def _clip(self) -> ClipConfig:
        return self.config.clip or self.models.clip

    @property
    def _max_chars(self) -> int:
        return self.config.max_chars or _MAX_CHARS

    @property
    def _looks(self) -> bool:
        """Whether a model sees the images."""
        return self.config.describer is not None or self.config.parts[1] == "attributes"

    def prepare(self, batch: Sequence[Sample]) -> None:
        if self._looks:
            decode(batch, self.config.resources.threads)

    def __call__(self, batch: Sequence[Sample]) -> list[Mapping[str, bytes] | Bad]:
        c, resources = self.config, self.config.resources
        sentences: list[str | None] = [""] * len(batch)
        found: list[list[str] | None] = [[] for _ in batch]
        if self._looks:
            images_B3HW = images(batch, resources.threads).to(resources.device)
            sentences = self.captioner.sentences(images_B3HW) if c.describer else sentences
            found = self.zero_shot(images_B3HW) if c.parts[1] == "attributes" else found
        return [self._one(*seen) for seen in zip(batch, sentences, found, strict=True)]

    def _one(self, sample: Sample, sentence: str | None, found: list[str] | None) -> Mapping[str, bytes] | Bad:
        if sentence is None or found is None:
            return not_finite(self.name, f"what {'the captioner' if sentence is None else 'CLIP'} sees")
        try:
            coarse, fine = self._coarse(sample, sentence), self._fine(sample, found)
            return {"caption.json": encode_json(self._content(coarse, fine))}
        except Fault as fault:
            return fault.bad

    def _content(self, coarse: _Coarse, fine: list[str]) -> dict[str, Any]:
        text = coarse.text or coarse.template.replace("{}", self._concept(fine))
        content: dict[str, Any] = {"text": text, "template": coarse.template}
        if self.config.original:
            return content
        content |= {"text": joined(text, fine), "attributes": fine}
        if len(content["text"]) > self._max_chars:
            about = f"the caption '{text[:40]}...' has {len(content['text'])} characters"
            raise Fault("long_caption", f"{about}; stages.caption.max_chars allows {self._max_chars}")
        return content | ({"template_drawn": True} if coarse.drawn else {})

    def _concept(self, fine: list[str]) -> str:
        """What fills a template: a fine word that is a noun for the concept (``a woman``), or the recipe's."""
        nouns = [self.words.names()[name] for name in self.words.concepts] if fine else []
        return next((phrase for phrase in fine if phrase in nouns), self.config.concept)

    def _coarse(self, sample: Sample, sentence: str) -> _Coarse:
        drawn = self._drawn(sample["__key__"])
        kind = self.config.parts[0]
        if kind == "source":
            return self._from_source(_meta(sample), drawn)
        if kind == "class":
            return self._from_class(_meta(sample), drawn)
        if kind == "captioner":
            return self._from_captioner(sentence, drawn)
        return _Coarse(None, drawn)

    def _from_source(self, meta: Mapping[str, Any], drawn: str) -> _Coarse:
        text, template = meta["caption"], meta["template"]
        if template and template.count("{}") != 1:
            problem = f"the source's template '{template}' needs one {{}} where the concept is named"
            raise Fault("bad_template", problem)
        if not template and self.config.missing == "quarantine":
            raise _incomplete(text)
        return _Coarse(text, template or drawn)

    def _from_class(self, meta: Mapping[str, Any], drawn: str) -> _Coarse:
        names = spoken(meta["labels"], "class", self.words.phrases)
        if names:
            return _Coarse(drawn.replace("{}", with_article(names[0])), drawn)
        if self.config.missing == "template":
            return _Coarse(None, drawn)
        raise _unlabelled("class", meta["labels"])

    def _from_captioner(self, sentence: str, drawn: str) -> _Coarse:
        if not sentence:
            advice = "look at the image, or give the captioner another prompt (stages.caption.captioner.prompt)"
            raise Fault("no_caption", f"the captioner says nothing about it; {advice}")
        template = gap_at(sentence, self.config.nouns)
        return _Coarse(sentence, template or drawn, drawn=template is None)

    def _fine(self, sample: Sample, found: list[str]) -> list[str]:
        """Phrases, each once."""
        if self.config.parts[1] != "labels":
            return found
        labels, phrases = _meta(sample)["labels"], self.words.names()
        out: list[str] = []
        for name in self.config.labels:
            said = spoken(labels, name, phrases)
            if said is None and self.config.missing == "quarantine":
                raise _unlabelled(name, labels)
            out += said or []
        return list(dict.fromkeys(out))

    def _drawn(self, key: str) -> str:
        """A template that depends on the sample and the seed alone, not on its neighbours."""
        digest = hashlib.sha256(f"{self.config.seed}:{key}".encode()).digest()
        return self.config.templates[int.from_bytes(digest[:8]) % len(self.config.templates)]


def _meta(sample: Sample) -> dict[str, Any]:
    return decode_json(sample["meta.json"], f"meta.json of {sample['__key__']}")


def _incomplete(text: str | None) -> Fault:
    advice = "add one, or set stages.caption.missing=template"
    if not text:
        return Fault("no_caption", f"the source has no sentence about it; {advice}")
    return Fault("no_template", f"the source has no template that says where '{text}' names the concept; {advice}")


def _unlabelled(name: str, labels: Mapping[str, Any]) -> Fault:
    has = ", ".join(sorted(labels)) or "none"
    advice = "name another in stages.caption, or set stages.caption.missing=template"
    return Fault("no_label", f"the source gives it no label '{name}', it has {has}; {advice}")
