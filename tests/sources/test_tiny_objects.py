"""Objects of the tiny world: many classes, things that differ, words that are true, classes that can be held out."""

from __future__ import annotations

import re
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from e4t_core.bundled.build_tokenizer import WORDS
from e4t_core.errors import UsageError
from pipelines.sources.tiny_world import Picture, render
from pipelines.sources.tiny_world.domains import DOMAINS
from pipelines.sources.tiny_world.domains.object import Object
from pipelines.sources.tiny_world.domains.object.kinds import KINDS
from pipelines.sources.tiny_world.domains.object.traits import COLORS, MADE, Traits
from pipelines.sources.tiny_world.draws import Draws
from pipelines.sources.tiny_world.light import ground_shadow, relief
from pipelines.sources.tiny_world.pen import Ink, Pen, ellipse, points, rounded
from pipelines.sources.tiny_world.scenes import SCENES
from pipelines.sources.tiny_world.styles import STYLES
from tests.sources.test_tiny_world import source

CLASSES = Object.classes


def thing(identity: int, style: str = "photo", scene: str = "plain", pose: int = 0, **options: Any) -> Picture:
    return render("object", identity, style, scene, pose, **options)


def things(n: int, split: str = "train", seed: int = 0) -> list[Traits]:
    world = Object()
    return [world.traits_of(world.class_of(i), Draws(seed, "object", split, i, "traits")) for i in range(n)]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_class_fills_the_frame_in_every_style(kind: str) -> None:
    number = CLASSES.index(kind)
    for style in STYLES:
        masks = [thing(number + k * len(CLASSES), style, "forest", k).mask >= 128 for k in range(4)]
        for mask in masks:
            rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
            assert 0.06 < mask.mean() < 0.75
            assert max(np.ptp(rows), np.ptp(columns)) >= 34
            assert np.ptp(columns) >= 12
            assert mask[[0, -1]].mean() < 0.12  # hardly cut off above or below


@pytest.mark.parametrize("style", STYLES)
def test_mask_is_exactly_what_no_scene_changes(style: str) -> None:
    """The shadow on the ground belongs to the scene."""
    for number in (0, CLASSES.index("plane"), CLASSES.index("chair")):
        pictures = [thing(number, style, scene, 1) for scene in SCENES]
        mask = pictures[0].mask
        assert all((p.mask == mask).all() for p in pictures)
        stack = np.stack([p.rgb for p in pictures]).astype(int)
        spread = (stack.max(0) - stack.min(0)).max(-1)
        assert (spread[mask == 255] == 0).all()
        assert (spread[mask == 0] > 8).mean() > 0.97


def test_classes_come_in_turn_and_have_one_token_each() -> None:
    assert len(CLASSES) >= 30
    assert len(set(CLASSES)) == len(CLASSES)
    assert set(CLASSES) <= set(WORDS)
    assert [Object().class_of(i) for i in range(2 * len(CLASSES))] == [*CLASSES, *CLASSES]


def test_every_domain_says_its_classes() -> None:
    assert DOMAINS.get("face").classes == ("person",)
    for name in DOMAINS.names():
        assert DOMAINS.get(name)().class_of(7) in DOMAINS.get(name).classes


def test_identities_differ_and_splits_never_meet() -> None:
    known = {t for split in ("train", "val", "test") for t in things(400, split)} | set(things(400, seed=1))
    assert len(known) == 4 * 400


def test_things_of_a_class_look_different() -> None:
    for kind in ("mug", "car", "apple"):
        number = CLASSES.index(kind)
        looks = [thing(number + k * len(CLASSES)).rgb.astype(int) for k in range(8)]
        assert min(np.abs(a - b).mean() for a, b in combinations(looks, 2)) > 3


def test_a_thing_keeps_its_colour_in_every_pose() -> None:
    number = next(i for i, t in enumerate(things(200)) if t.kind == "ball" and t.pattern == "striped")
    means = [p.rgb[p.mask == 255].mean(0) for p in (thing(number, pose=k) for k in range(6))]
    assert np.ptp(means, axis=0).max() < 40
    assert len({thing(number, pose=k).rgb.tobytes() for k in range(6)}) == 6


def test_captions_are_true_and_of_known_words() -> None:
    for i, traits in enumerate(things(160)):
        picture = thing(i, "sketch", "night", i, size=32)
        assert set(re.findall("[a-z]+", picture.caption)) <= set(WORDS)
        assert traits.kind in picture.attributes
        assert traits.color_name in picture.attributes
        assert (traits.pattern in picture.attributes) == (traits.pattern != "solid")
        article = "an" if traits.color_name[0] in "aeiou" else "a"
        pattern = "" if traits.pattern == "solid" else f"{traits.pattern} "
        said = f"{article} {traits.color_name} {pattern}{traits.kind}"
        assert picture.caption.startswith(f"a pencil sketch of {said} in the city at night")
        assert traits.pattern == "solid" or KINDS[traits.kind].patterned


def test_colours_are_told_apart_by_their_words() -> None:
    assert set(COLORS) <= set(WORDS)
    assert all(color in COLORS for kind in KINDS.values() for color in kind.colors or MADE)
    for t in things(300):
        assert np.linalg.norm(np.subtract(COLORS[t.color_name], t.second)) > 150
        assert np.abs(np.subtract(t.color, COLORS[t.color_name])).max() <= 22


# --- as a source


def test_items_carry_their_class() -> None:
    items = list(source(domain="object", identities=len(CLASSES), images_per_identity=1).items())
    assert [item.labels["class"] for item in items] == list(CLASSES)
    assert {item.labels["class"] for item in source(identities=3).items()} == {"person"}


def test_selected_classes_keep_names_and_pictures() -> None:
    """What is listed of a class does not depend on which others are."""
    whole = {item.id: item for item in source(domain="object", identities=3 * len(CLASSES)).items()}
    chosen = list(source(domain="object", classes=["chair", "mug"], identities=6).items())
    assert [item.labels["class"] for item in chosen[::4]] == ["mug", "chair"] * 3
    assert all(whole[item.id] == item for item in chosen)
    others = [kind for kind in CLASSES if kind not in ("mug", "chair")]
    rest = source(domain="object", classes=others, identities=2 * len(others)).items()
    assert not {item.labels["identity"] for item in rest} & {item.labels["identity"] for item in chosen}


def test_a_selected_class_is_read_as_it_is_labelled() -> None:
    world = source(domain="object", classes=["teddy"], identities=2, split="test")
    for item in world.items():
        caption = world.read(item).caption
        assert caption is not None
        assert " teddy" in caption


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"domain": "object", "classes": ["mugg"]}, "no class of object is called 'mugg'; did you mean 'mug'"),
        ({"classes": ["persn"]}, "no class of face is called 'persn'; did you mean 'person'"),
        ({"domain": "object", "classes": []}, "classes"),
        ({"domain": "objekt", "classes": ["mug"]}, "no domain is called 'objekt'; did you mean 'object'"),
    ],
)
def test_wrong_classes(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        source(**fields)


# --- shared drawing


def test_a_pen_inside_an_outline_leaves_the_rest_alone() -> None:
    pen = Pen(64, Ink())
    pen.shape(ellipse(0.5, 0.5, 0.3, 0.3), (200, 0, 0))
    before = np.asarray(pen.image).copy()
    with pen.inside(ellipse(0.5, 0.5, 0.2, 0.2)) as inner:
        inner.box(0, 0, 1, 0.5, (0, 0, 200))
    changed = (np.asarray(pen.image) != before).any(-1)
    row, column = np.nonzero(changed)
    assert 220 < changed.sum() < 320  # half of the disc
    assert np.hypot(row - 32, column - 32).max() < 14.5
    assert row.max() <= 33
    assert set(np.unique(np.asarray(pen.image)[..., 3])) == {0, 255}


def test_rounded_rectangles() -> None:
    outline = rounded(0.1, 0.2, 0.9, 0.6, 0.1)
    assert np.allclose(outline.min(0), (0.1, 0.2))
    assert np.allclose(outline.max(0), (0.9, 0.6))
    corners = points((0.1, 0.2), (0.9, 0.2), (0.9, 0.6), (0.1, 0.6))
    nearest = np.linalg.norm(outline[:, None] - corners, axis=-1).min(0)
    assert np.allclose(nearest, 0.1 * (2**0.5 - 1))


def test_light_comes_from_its_side_and_shadow_lies_below() -> None:
    pen = Pen(256, Ink())
    pen.shape(ellipse(0.5, 0.5, 0.3, 0.3), (200, 200, 200))
    shade = np.asarray(relief(pen.image, -1.0), dtype=int)
    assert shade.shape == (64, 64)
    assert shade[32, 14] > 140  # lit from the left
    assert shade[32, 49] < 90
    cast = np.asarray(ground_shadow(pen.image, 0.0), dtype=int)
    assert cast[:40].min() == 255
    assert cast[50].min() < 150
