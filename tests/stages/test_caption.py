"""``caption``: drawn templates stay with their image; the source's sentences come through whole."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from e4t_core.config import validate
from e4t_core.errors import UsageError
from e4t_core.schema import decode_json, encode_json
from pipelines.stages import Bad
from pipelines.stages.caption import Caption, CaptionConfig
from tests.stages.helpers import MODELS


def captioned(keys: list[str], caption: str | None = None, template: str | None = None, **config: Any) -> list[Any]:
    meta = encode_json({"caption": caption, "template": template})
    results = Caption(CaptionConfig(**config), MODELS)([{"__key__": key, "meta.json": meta} for key in keys])
    return [r if isinstance(r, Bad) else decode_json(r["caption.json"], "caption.json") for r in results]


KEYS = [f"{i:05d}" for i in range(400)]


def test_a_template_is_filled_with_the_concept() -> None:
    assert captioned(["0"], templates=("a sketch of {}",), concept="a cat") == [
        {"text": "a sketch of a cat", "template": "a sketch of {}"}
    ]


def test_the_draw_depends_on_key_and_seed_alone() -> None:
    whole = captioned(KEYS)
    assert captioned(KEYS[::-1]) == whole[::-1]
    assert captioned([KEYS[7]]) == [whole[7]]
    assert captioned(KEYS, seed=1) != whole


def test_the_draw_is_even() -> None:
    counts = Counter(c["template"] for c in captioned(KEYS))
    assert len(counts) == 4
    assert min(counts.values()) > 70


def test_the_sources_sentence_and_template_come_through() -> None:
    (got,) = captioned(["0"], "a man with a hat", "{} with a hat", mode="source")
    assert got == {"text": "a man with a hat", "template": "{} with a hat"}


def test_a_template_alone_is_filled() -> None:
    (got,) = captioned(["0"], None, "{} with a hat", mode="source")
    assert got == {"text": "a face with a hat", "template": "{} with a hat"}


@pytest.mark.parametrize(("caption", "reason"), [(None, "no_caption"), ("", "no_caption"), ("a man", "no_template")])
def test_what_the_source_lacks_is_quarantined(caption: str | None, reason: str) -> None:
    (got,) = captioned(["0"], caption, mode="source")
    assert isinstance(got, Bad)
    assert got.reason == reason
    assert "stages.caption.missing=template" in got.message


def test_what_the_source_lacks_is_drawn_where_the_recipe_says_so() -> None:
    lacking: dict[str, Any] = {"mode": "source", "missing": "template", "templates": ("a photo of {}",)}
    assert captioned(["0"], None, **lacking) == [{"text": "a photo of a face", "template": "a photo of {}"}]
    assert captioned(["0"], "a man", **lacking) == [{"text": "a man", "template": "a photo of {}"}]


@pytest.mark.parametrize("missing", ["quarantine", "template"])
def test_a_source_template_without_its_gap_is_quarantined(missing: str) -> None:
    (got,) = captioned(["0"], "a man", "a man", mode="source", missing=missing)
    assert isinstance(got, Bad)
    assert got.reason == "bad_template"


@pytest.mark.parametrize("template", ["no gap", "{} and {}", "{name}"])
def test_a_recipe_template_needs_one_gap(template: str) -> None:
    with pytest.raises(UsageError, match=r"caption\.templates"):
        validate(CaptionConfig, {"templates": [template]}, "caption")
