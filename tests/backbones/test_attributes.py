"""Zero-shot attributes: right about the tiny world, and by the rules that the recipe sets."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from e4t_core.backbones import ClipModel, load_clip
from e4t_core.backbones.attributes import AttributeList, Option, Pair, ZeroShot
from e4t_core.backbones.config import ClipConfig
from e4t_core.config import validate
from e4t_core.errors import UsageError
from pipelines.sources.tiny_world import Picture, render

SCENES = {"beach": "on the beach", "snow": "in the snow", "night": "in the city at night"}
HAIR = ("black", "red", "blond")
PAIRS = {
    name: Pair(phrase=words, present=f"a photo of a person {words}", absent="a photo of a person")
    for name, words in SCENES.items()
}
GROUPS = {"hair": {c: Option(phrase=f"{c} hair", prompt=f"a photo of a person with {c} hair") for c in HAIR}}
BOTH = AttributeList(pairs=PAIRS, groups=GROUPS)


@pytest.fixture(scope="module")
def trained() -> ClipModel:
    return load_clip(ClipConfig(path="bundled:clip_tiny"))


def tensors(pictures: list[Picture]) -> Tensor:
    return torch.stack([torch.from_numpy(p.rgb.copy()).permute(2, 0, 1).float() / 127.5 - 1 for p in pictures])


@pytest.fixture(scope="module")
def people() -> tuple[list[str], list[Picture]]:
    """Scenes and pictures of people that training never saw."""
    scenes = [("plain", *SCENES)[i % 4] for i in range(96)]
    return scenes, [render("face", i, "photo", scene, 0, split="test") for i, scene in enumerate(scenes)]


def hair_of(picture: Picture) -> str | None:
    """The one of HAIR that the picture's first attribute, its hair, names."""
    return next((colour for colour in HAIR if colour in picture.attributes[0].split()), None)


# --- right


def test_what_is_in_the_pictures_is_found(trained: ClipModel, people: tuple[list[str], list[Picture]]) -> None:
    scenes, pictures = people
    found = ZeroShot(trained, AttributeList(pairs=PAIRS), 0.7, 0.2)(tensors(pictures))
    right = [phrases == [SCENES[s]] if s in SCENES else phrases == [] for s, phrases in zip(scenes, found, strict=True)]
    assert sum(right) / len(right) > 0.9  # by chance 1 in 8


def test_hair_is_named_right_far_above_chance(trained: ClipModel, people: tuple[list[str], list[Picture]]) -> None:
    known = [p for p in people[1] if hair_of(p)]
    found = ZeroShot(trained, AttributeList(groups=GROUPS), 0.7, 0.0)(tensors(known))
    right = sum(phrases == [f"{hair_of(p)} hair"] for p, phrases in zip(known, found, strict=True))
    assert len(known) > 20
    assert right / len(known) > 0.5  # by chance 1 in 3


# --- the rules


def test_presence_is_a_share_of_the_pair_and_a_groups_best_must_lead(trained: ClipModel) -> None:
    pictures = tensors([render("face", i, "photo", "snow" if i % 2 else "plain", 0, split="test") for i in range(12)])
    texts = [text for pair in PAIRS.values() for text in (pair.present, pair.absent)]
    texts += [option.prompt for option in GROUPS["hair"].values()]
    logits = trained.model.logit_scale.exp() * trained.embed_images(pictures) @ trained.embed_texts(texts).T
    presence = logits[:, :6].view(-1, 3, 2).softmax(-1)[..., 0]
    shares = logits[:, 6:].softmax(-1)
    for threshold, margin in [(0.5, 0.0), (0.9, 0.3), (0.2, 0.6)]:
        expected = []
        for row, group in zip(presence.tolist(), shares.tolist(), strict=True):
            words = [pair.phrase for pair, share in zip(PAIRS.values(), row, strict=True) if share > threshold]
            first, second = sorted(group, reverse=True)[:2]
            words += [f"{HAIR[group.index(first)]} hair"] if first - second > margin else []
            expected.append(words)
        assert ZeroShot(trained, BOTH, threshold, margin)(pictures) == expected


@pytest.mark.parametrize(("threshold", "margin", "count"), [(0.0, 0.0, 4), (1.0, 1.0, 0), (0.0, 1.0, 3), (1.0, 0.0, 1)])
def test_the_ends_of_both_scales(clip: ClipModel, threshold: float, margin: float, count: int) -> None:
    noise = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert [len(words) for words in ZeroShot(clip, BOTH, threshold, margin)(noise)] == [count] * 3


def test_texts_are_embedded_once(clip: ClipModel, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    embed = clip.embed_texts
    monkeypatch.setattr(clip, "embed_texts", lambda texts: (asked.append(texts), embed(texts))[1])
    judge = ZeroShot(clip, BOTH, 0.5, 0.1)
    for _ in range(3):
        judge(torch.zeros(2, 3, 64, 64))
    assert [len(texts) for texts in asked] == [9]


@pytest.mark.parametrize(("attributes", "count"), [(AttributeList(pairs=PAIRS), 3), (AttributeList(groups=GROUPS), 1)])
def test_a_list_may_have_pairs_or_groups_alone(clip: ClipModel, attributes: AttributeList, count: int) -> None:
    noise = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert [len(words) for words in ZeroShot(clip, attributes, 0.0, 0.0)(noise)] == [count] * 2


# --- lists


def test_names_and_phrases_of_a_list() -> None:
    listed = AttributeList(pairs={"Hat": PAIRS["snow"]}, groups=GROUPS, phrases={"281": "a tabby"}, concepts=("281",))
    assert listed.names() == {"Hat": "in the snow", **{c: f"{c} hair" for c in HAIR}, "281": "a tabby"}


def test_a_list_with_nothing_to_look_for_is_refused(clip: ClipModel) -> None:
    with pytest.raises(UsageError, match="neither pairs nor groups"):
        ZeroShot(clip, AttributeList(phrases={"281": "a tabby"}), 0.5, 0.1)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"pair": {}}, r"unknown key 'pair'; did you mean 'pairs'"),
        ({"pairs": {"Hat": {"phrase": "a hat", "present": "a hat"}}}, r"pairs\.Hat\.absent: required"),
        ({"groups": {"hair": {"red": {"phrase": "red", "prompt": "red"}}}}, r"groups\.hair"),
        ({"phrases": {"281": ""}}, r"phrases\.281"),
        ({"phrases": {"cat": "a cat"}, "concepts": ["cta"]}, r"concepts: the list has no 'cta'; did you mean 'cat'"),
    ],
)
def test_a_wrong_list_says_what_is_right(tree: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        validate(AttributeList, tree, "list")
