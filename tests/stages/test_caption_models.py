"""``caption`` beyond templates: described images, labels and attributes as words, and old stores left as they were."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch

from e4t_core.backbones.config import ClipConfig
from e4t_core.config import validate
from e4t_core.errors import UsageError, UserError
from e4t_core.record import canonical_json, fingerprint
from e4t_core.schema import Sample, decode_json, encode_json
from e4t_core.storage import Store
from pipelines.shards.commit import stage_identity
from pipelines.sources import RawSample
from pipelines.sources.tiny_world import render
from pipelines.stages import Bad, Resources
from pipelines.stages._sentences import attribute_list, gap_at
from pipelines.stages.caption import Caption, CaptionConfig
from tests.stages.helpers import MODELS, ingested
from tests.support.blip import save_blip

TRAINED = MODELS.model_copy(update={"clip": ClipConfig(path="bundled:clip_tiny")})
WOMAN = "a photo of a young woman smiling"
CELEBA = """
5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair Blond_Hair Blurry
Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones Male
Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks
Sideburns Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace
Wearing_Necktie Young
"""
"""The header of CelebA's list."""
TINY_WORLD = """
pairs:
  beach: {phrase: on the beach, present: a photo of a person on the beach, absent: a photo of a person}
  snow: {phrase: in the snow, present: a photo of a person in the snow, absent: a photo of a person}
groups:
  style:
    photo: {phrase: photographed, prompt: a photo of a person}
    sketch: {phrase: drawn, prompt: a pencil sketch of a person}
"""


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A captioner's configuration that says what it is asked to."""
    folder = tmp_path_factory.mktemp("blip")

    @lru_cache
    def saying(text: str) -> dict[str, Any]:
        return {"path": str(save_blip(folder / hashlib.md5(text.encode()).hexdigest(), text))}

    return saying


@pytest.fixture(scope="module")
def tiny_list(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("lists") / "tiny.yaml"
    path.write_text(TINY_WORLD)
    return str(path)


@lru_cache
def image(scene: str = "plain", style: str = "photo", identity: int = 0) -> bytes:
    made = ingested(RawSample(render("face", identity, style, scene, 0, split="test").png()), size=64)
    return bytes(made["image.png"])


def sample(key: str = "0", labels: dict[str, Any] | None = None, png: bytes | None = None, **meta: Any) -> Sample:
    content = encode_json({"labels": labels or {}, "caption": None, "template": None, **meta})
    return {"__key__": key, "meta.json": content, "image.png": png or image()}


def build(models: Any = MODELS, **config: Any) -> Caption:
    return Caption(validate(CaptionConfig, config, "stages.caption"), models)


def captioned(samples: list[Sample], models: Any = MODELS, **config: Any) -> list[Any]:
    stage = build(models, **config)
    stage.setup()
    return [r if isinstance(r, Bad) else decode_json(r["caption.json"], "caption.json") for r in stage(samples)]


def one(given: Sample, **config: Any) -> Any:
    return captioned([given], **config)[0]


# --- stores that are there already


PINNED = [
    (
        {},
        b'{"concept":"a face","missing":"quarantine","mode":"template","seed":0,'
        b'"templates":["a photo of {}","a picture of {}","a portrait of {}","{}"]}',
        "e63f8a5d6ec84adc",
    ),
    (
        {"mode": "source"},
        b'{"concept":"a face","missing":"quarantine","mode":"source","seed":0,'
        b'"templates":["a photo of {}","a picture of {}","a portrait of {}","{}"]}',
        "8f8dda9d29357bab",
    ),
    (
        {"mode": "source", "missing": "template", "concept": "a cat", "seed": 3, "templates": ["a sketch of {}", "{}"]},
        b'{"concept":"a cat","missing":"template","mode":"source","seed":3,"templates":["a sketch of {}","{}"]}',
        "52df0576fe52ad9e",
    ),
]


@pytest.mark.parametrize(("config", "settings", "identity"), PINNED)
def test_the_first_modes_keep_their_fingerprints(config: dict[str, Any], settings: bytes, identity: str) -> None:
    stage = build(**config)
    assert canonical_json(stage.settings()) == settings
    assert (stage.version, stage.weights()) == (1, "")
    assert fingerprint(stage_identity(stage)) == identity
    assert set(stage.config.dump()) == {"resources", "mode", "missing", "templates", "concept", "seed"}
    unused = build(**config, nouns=["cat"], threshold=0.9, attributes="cat", captioner={"path": "owner/model"})
    assert canonical_json(unused.settings()) == settings, "what is not used makes no other store"


def test_the_first_modes_keep_their_bytes() -> None:
    stage = build()
    (drawn,) = stage([sample("00003")])
    assert drawn == {"caption.json": b'{"template":"a portrait of {}","text":"a portrait of a face"}'}
    (taken,) = build(mode="source")([sample(caption="x" * 3000, template="{} x")])
    assert taken == {"caption.json": b'{"template":"{} x","text":"' + b"x" * 3000 + b'"}'}
    everything = b"".join(dict(r)["caption.json"] for r in stage([sample(f"{i:05d}") for i in range(400)]))  # type: ignore[arg-type]
    assert hashlib.sha256(everything).hexdigest()[:16] == "aa970d790ab684a2"


# --- a captioner's sentences


def test_a_described_image_has_its_sentence_with_a_gap_at_the_concept(blip: Any) -> None:
    got = one(sample(), mode="captioner", captioner=blip(WOMAN))
    assert got == {"text": WOMAN, "template": "a photo of {} smiling", "attributes": []}


def test_a_sentence_that_names_no_concept_gets_a_drawn_template(blip: Any) -> None:
    got = one(sample(), mode="captioner", captioner=blip("a red hat on a beach"), templates=["a sketch of {}"])
    assert got == {
        "text": "a red hat on a beach", "template": "a sketch of {}", "attributes": [], "template_drawn": True
    }  # fmt: skip
    cats = {"mode": "captioner", "captioner": blip("a cat on a beach"), "templates": ["{}"]}
    assert one(sample(), **cats)["template_drawn"] is True
    assert one(sample(), **cats, nouns=["cat"])["template"] == "{} on a beach"


def test_the_prompt_of_the_recipe_begins_the_sentence(tmp_path: Path) -> None:
    captioner = {"path": str(save_blip(tmp_path / "random")), "prompt": "a portrait of a man", "max_new_tokens": 4}
    got = one(sample(), mode="captioner", captioner=captioner)
    assert got["text"].startswith("a portrait of a man ")
    assert got["template"].startswith("a portrait of {} ")


@pytest.mark.parametrize(
    ("sentence", "template"),
    [
        ("a photo of a woman smiling", "a photo of {} smiling"),
        ("a photo of a young smiling woman with a hat", "a photo of {} with a hat"),
        ("The old man, in a boat", "{}, in a boat"),
        ("a close up of her face", "a close up of {}"),
        ("portrait of woman", "portrait of {}"),
        ("a cat and woman", "a cat and {}"),
        ("the face of a man", "the face of {}"),  # nouns come in order of preference
        ("a man and a man", "{} and a man"),
        ("a very very very very tall man", "a very very very very tall {}"),
        ("a woman's face", "{}"),
        ("two women in manhattan", None),
        ("a man with a { }", None),
        ("", None),
    ],
)
def test_the_gap_is_the_noun_phrase(sentence: str, template: str | None) -> None:
    assert gap_at(sentence, ("woman", "man", "person", "face")) == template


def test_a_noun_may_be_two_words() -> None:
    assert gap_at("a photo of the stuffed animal on a bed", ("stuffed animal",)) == "a photo of {} on a bed"


def test_a_captioner_that_says_nothing_quarantines(blip: Any) -> None:
    for says, prompt in [("", ""), ("a photo of", "a photo of")]:
        got = one(sample(), mode="captioner", captioner={**blip(says), "prompt": prompt})
        assert isinstance(got, Bad)
        assert got.reason == "no_caption"
        assert "captioner.prompt" in got.message


@pytest.mark.parametrize("beams", [1, 3])
def test_a_captioner_that_sees_nothing_finite_quarantines_that_sample(
    beams: int, blip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = build(mode="captioner", captioner={**blip(WOMAN), "beams": beams})
    stage.setup()
    look = stage.captioner.model.vision_model.forward

    def spoiled(*args: Any, **kwargs: Any) -> Any:
        out = look(*args, **kwargs)
        out.last_hidden_state[1, 0, 0] = torch.nan
        return out

    monkeypatch.setattr(stage.captioner.model.vision_model, "forward", spoiled)
    first, bad, last = stage([sample(str(i)) for i in range(3)])
    assert not isinstance(first, Bad)
    assert not isinstance(last, Bad)
    assert isinstance(bad, Bad)
    assert (bad.reason, bad.message.split(" has ")[0]) == ("not_finite", "stage 'caption': what the captioner sees")


def test_long_captions_are_quarantined(blip: Any) -> None:
    described = {"mode": "captioner", "captioner": blip(WOMAN)}
    assert one(sample(), **described, max_chars=len(WOMAN))["text"] == WOMAN
    got = one(sample(), **described, max_chars=len(WOMAN) - 1)
    assert isinstance(got, Bad)
    assert got.reason == "long_caption"
    assert "has 32 characters; stages.caption.max_chars allows 31" in got.message
    long = sample(labels={"attributes": ["tall"] * 3 + ["x" * 1000]})
    assert one(long, mode="labels").reason == "long_caption", "1000 by default"
    assert one(sample(caption="x" * 30, template="{}"), mode="source", max_chars=20).reason == "long_caption"


# --- labels


def test_labels_are_said_as_phrases() -> None:
    labels = {"attributes": ["Eyeglasses", "Black_Hair", "Rare_Thing", "Black_Hair"]}
    got = one(sample(labels=labels), mode="labels", templates=["a photo of {}"], concept="a woman")
    assert got == {
        "text": "a photo of a woman, wearing eyeglasses, black hair, Rare Thing",
        "template": "a photo of {}",
        "attributes": ["wearing eyeglasses", "black hair", "Rare Thing"],
    }


def test_a_word_that_names_the_concept_takes_its_place() -> None:
    labels = {"attributes": ["Black_Hair", "Male"]}
    got = one(sample(labels=labels), mode="labels", templates=["a photo of {}"])
    assert got["text"] == "a photo of a man, black hair"
    assert got["attributes"] == ["black hair", "a man"]


def test_several_labels_of_several_kinds() -> None:
    labels = {"style": "oil_painting", "Eyeglasses": True, "Bald": False, "class": 281, "empty": ""}
    config: dict[str, Any] = {"mode": "labels", "templates": ["{}"], "concept": "art"}
    named = ["style", "Eyeglasses", "Bald"]
    assert one(sample(labels=labels), **config, labels=named)["text"] == "art, oil painting, wearing eyeglasses"
    for name in ("class", "empty", "gone"):
        assert isinstance(one(sample(labels=labels), **config, labels=[*named, name]), Bad)
    bad = one(sample(labels=labels), **config, labels=["class"])
    assert bad.reason == "bad_label"
    assert "'class' holds 281" in bad.message
    bad = one(sample(labels=labels), **config, labels=["gone"])
    assert bad.reason == "no_label"
    assert "no label 'gone', it has Bald, Eyeglasses, class, empty, style" in bad.message
    assert one(sample(labels=labels), **config, labels=["gone"], missing="template")["text"] == "art"


def test_class_names_are_the_ablation() -> None:
    config: dict[str, Any] = {"mode": "class", "templates": ["a photo of {}"]}
    for label, said in [
        ("tench", "a tench"),
        ("African elephant", "an African elephant"),
        ("dining_room", "a dining room"),
    ]:
        got = one(sample(labels={"class": label}), **config)
        assert got == {"text": f"a photo of {said}", "template": "a photo of {}", "attributes": []}
    assert one(sample(), **config).reason == "no_label"
    assert one(sample(), **config, missing="template")["text"] == "a photo of a face"


def test_a_list_can_name_numbered_classes(tmp_path: Path) -> None:
    (tmp_path / "imagenet.yaml").write_text("phrases: {'281': tabby cat}")
    config: dict[str, Any] = {"mode": "class", "templates": ["{}"], "attributes": str(tmp_path / "imagenet.yaml")}
    assert one(sample(labels={"class": 281}), **config)["text"] == "a tabby cat"
    assert one(sample(labels={"class": 282}), **config).reason == "bad_label"


# --- attributes seen


def test_attributes_are_what_clip_sees(tiny_list: str) -> None:
    scenes = [("plain", "beach", "snow")[i % 3] for i in range(30)]
    styles = [("photo", "sketch")[i % 2] for i in range(30)]
    shown = [sample(f"{i}", png=image(s, t, i)) for i, (s, t) in enumerate(zip(scenes, styles, strict=True))]
    config: dict[str, Any] = {"mode": "attributes", "attributes": tiny_list, "templates": ["{}"], "concept": "someone"}
    found = [g["attributes"] for g in captioned(shown, TRAINED, **config)]
    places = {"plain": [], "beach": ["on the beach"], "snow": ["in the snow"]}
    words = {"photo": "photographed", "sketch": "drawn"}
    expected = [[*places[s], words[t]] for s, t in zip(scenes, styles, strict=True)]
    assert sum(f == e for f, e in zip(found, expected, strict=True)) > 22  # by chance 4
    backwards = [g["attributes"] for g in captioned(shown[::-1], TRAINED, **config)][::-1]
    assert backwards == found
    assert captioned(shown[:1], TRAINED, **config)[0]["text"] == "someone, photographed"


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_finds_no_attributes_and_says_so(
    value: float, tiny_list: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = build(TRAINED, mode="attributes", attributes=tiny_list)
    stage.setup()
    batch = [sample(str(i), png=image(identity=i)) for i in range(3)]
    sound, embed = stage(batch), stage.zero_shot.clip.embed_images

    def spoiled(images_B3HW: torch.Tensor) -> torch.Tensor:
        features_BD = embed(images_B3HW).clone()
        features_BD[1, 3] = value
        return features_BD

    monkeypatch.setattr(stage.zero_shot.clip, "embed_images", spoiled)
    first, bad, last = stage(batch)
    assert [first, last] == [sound[0], sound[2]]
    assert isinstance(bad, Bad)
    assert bad.reason == "not_finite"
    assert bad.message.startswith("stage 'caption': what CLIP sees has values that are not finite")


def test_a_model_of_its_own_looks_for_attributes(tiny_list: str) -> None:
    shown = [sample(png=image("beach", "photo", i)) for i in range(8)]
    config: dict[str, Any] = {"mode": "attributes", "attributes": tiny_list}
    own = captioned(shown, MODELS, **config, clip={"path": "bundled:clip_tiny"})
    assert own == captioned(shown, TRAINED, **config) != captioned(shown, MODELS, **config)


def test_threshold_and_margin_are_the_recipes(tiny_list: str) -> None:
    shown, config = [sample()], {"mode": "attributes", "attributes": tiny_list}
    assert len(captioned(shown, TRAINED, **config, threshold=0, min_margin=0)[0]["attributes"]) == 3
    assert captioned(shown, TRAINED, **config, threshold=1, min_margin=1)[0]["attributes"] == []


# --- both


def test_a_coarse_sentence_and_fine_words_are_joined(blip: Any) -> None:
    """Section 3.3 of the Taming Encoder."""
    given = sample(labels={"attributes": ["Eyeglasses", "Black_Hair"], "class": "person"})
    got = one(given, coarse="captioner", fine="labels", captioner=blip("a photo of a woman"))
    assert got["text"] == "a photo of a woman, wearing eyeglasses, black hair"
    assert got["template"] == "a photo of {}"
    got = one(given, coarse="class", fine="labels", templates=["a photo of {}"])
    assert got["text"] == "a photo of a person, wearing eyeglasses, black hair"


def test_what_the_sentence_says_is_not_said_again(blip: Any) -> None:
    given = sample(labels={"attributes": ["Male", "Black_Hair", "Wearing_Hat"]})
    config: dict[str, Any] = {"coarse": "captioner", "fine": "labels"}
    got = one(given, **config, captioner=blip("a man with black hair"))
    assert got["text"] == "a man with black hair, wearing a hat"
    assert got["attributes"] == ["a man", "black hair", "wearing a hat"]
    got = one(given, **config, captioner=blip("a woman with black hair"))
    assert got["text"] == "a woman with black hair, a man, wearing a hat", "'man' in 'woman' is no man"


def test_the_sources_sentence_takes_words_too(tiny_list: str) -> None:
    given = sample(caption="a man in the snow", template="{} in the snow", png=image("snow"))
    (got,) = captioned([given], TRAINED, mode="source", fine="attributes", attributes=tiny_list)
    assert got["text"] == "a man in the snow, photographed"
    assert (got["template"], got["attributes"]) == ("{} in the snow", ["in the snow", "photographed"])
    assert one(sample(caption="a man"), mode="source", fine="labels").reason == "no_template"


@pytest.mark.parametrize("coarse", ["template", "source", "captioner", "class"])
@pytest.mark.parametrize("fine", ["none", "labels", "attributes"])
def test_every_pair_gives_whole_captions(coarse: str, fine: str, blip: Any) -> None:
    given = sample(labels={"attributes": ["Bald"], "class": "person"}, caption="a man", template="{}")
    got = one(given, coarse=coarse, fine=fine, captioner=blip(WOMAN))
    assert set(got) == {"text", "template", "attributes"}
    assert got["template"].count("{}") == 1
    assert "{" not in got["text"]
    assert (got["attributes"] == ["bald"]) == (fine == "labels")


# --- lists that are shipped, and others


def test_the_list_of_faces_is_celebas() -> None:
    faces = attribute_list("face")
    phrases = faces.names()
    assert len(CELEBA.split()) == 40
    assert set(CELEBA.split()) <= set(phrases)
    assert not [p for p in phrases.values() if "_" in p or p != p.lower()]
    assert {"Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair"} <= set(faces.groups["hair colour"])
    assert faces.pairs["Eyeglasses"].present == "a person with eyeglasses"
    assert faces.pairs["Eyeglasses"].absent == "a person without eyeglasses"


@pytest.mark.parametrize("name", ["face", "cat"])
def test_shipped_lists_have_no_prompt_twice(name: str) -> None:
    listed = attribute_list(name)
    prompts = [text for pair in listed.pairs.values() for text in (pair.present, pair.absent)]
    groups = [option.prompt for group in listed.groups.values() for option in group.values()]
    assert all(pair.present != pair.absent for pair in listed.pairs.values())
    assert len(set(groups)) == len(groups)
    assert prompts
    assert groups


def test_lists_come_from_stores_too(tiny_list: str) -> None:
    store = Store("memory://lists")
    store.put("tiny.yaml", TINY_WORLD.encode())
    assert attribute_list(store.url("tiny.yaml")) == attribute_list(tiny_list)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fase", r"no list is called 'fase'; did you mean 'face'"),
        ("nowhere/list.yaml", r"'nowhere/list\.yaml' is no YAML file"),
        ("memory://lists/gone.yaml", r"is no YAML file"),
    ],
)
def test_a_list_that_is_not_there(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        attribute_list(name)


# --- configuration and fingerprints


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"mode": "captioner"}, r"need captioner\.path: a hub id"),
        ({"coarse": "captioner"}, r"need captioner\.path: a hub id"),
        ({"mode": "blip"}, r"stages\.caption\.mode: 'blip' does not fit"),
        ({"captioner": {"pth": "x"}}, r"captioner\.pth: unknown key 'pth'"),
        ({"threshold": 2.0}, r"threshold: 2\.0"),
        ({"max_chars": 0}, r"max_chars: 0"),
        ({"nouns": [""]}, r"nouns"),
        ({"labels": []}, r"labels"),
    ],
)
def test_a_recipe_that_does_not_fit(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(**config)


def about(stage: Caption) -> str:
    return fingerprint(stage_identity(stage))


def test_what_changes_captions_changes_the_fingerprint_and_nothing_else(blip: Any, tiny_list: str) -> None:
    base: dict[str, Any] = {
        "coarse": "captioner",
        "fine": "attributes",
        "captioner": blip(WOMAN),
        "attributes": tiny_list,
    }
    changes: list[dict[str, Any]] = [
        {"captioner": blip("a man")},
        {"captioner": {**blip(WOMAN), "prompt": "a photo of"}},
        {"captioner": {**blip(WOMAN), "beams": 2}},
        {"captioner": {**blip(WOMAN), "dtype": "bfloat16"}},
        {"captioner": {**blip(WOMAN), "max_new_tokens": 7}},
        {"attributes": "face"},
        {"clip": {"path": "bundled:clip_tiny", "random_seed": 5}},
        {"clip": {**MODELS.clip.dump(), "dtype": "bfloat16"}},
        *({name: value} for name, value in {"threshold": 0.6, "min_margin": 0.1, "max_chars": 99, "seed": 1}.items()),
        {"nouns": ["cat"]},
        {"templates": ["{}"]},
        {"fine": "none"},
        {"coarse": "template"},
    ]
    found = [about(build(**{**base, **change})) for change in changes]
    assert len({about(build(**base)), *found}) == len(changes) + 1
    for change in ({"labels": ["style"]}, {"resources": {"actors": 9}}, {"clip": {**MODELS.clip.dump(), "every": 1}}):
        assert about(build(**{**base, **change})) == about(build(**base))


def test_a_mode_and_its_parts_are_the_same_work(tmp_path: Path) -> None:
    assert about(build(mode="labels")) == about(build(coarse="template", fine="labels")) != about(build())
    assert about(build(mode="labels", labels=["style"])) != about(build(mode="labels"))
    copy = tmp_path / "copy.yaml"
    copy.write_text((Path(__file__).parents[2] / "pipelines/stages/attributes/face.yaml").read_text())
    assert about(build(mode="labels", attributes=str(copy))) == about(build(mode="labels"))
    copy.write_text(copy.read_text().replace("wearing eyeglasses", "with glasses"))
    assert about(build(mode="labels", attributes=str(copy))) != about(build(mode="labels"))


def test_fingerprints_need_no_model_and_name_a_missing_one(blip: Any) -> None:
    stage = build(coarse="captioner", fine="attributes", captioner=blip(WOMAN))
    assert stage.weights()
    assert not hasattr(stage, "captioner")
    assert not hasattr(stage, "zero_shot")
    with pytest.raises(UserError, match=r"no model folder '/nowhere'"):
        build(mode="captioner", captioner={"path": "/nowhere"}).weights()


def test_workers_are_given_the_device(blip: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = build(mode="captioner", captioner=blip(WOMAN))
    stage.config = stage.config.model_copy(update={"resources": Resources(device="meta")})
    stage.setup()
    assert {p.device for p in stage.captioner.parameters()} == {torch.device("meta")}
