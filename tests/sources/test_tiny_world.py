"""The tiny world: the same everywhere, exact masks, people who differ, splits that never meet."""

from __future__ import annotations

import hashlib
import io
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from e4t_core.config import validate
from e4t_core.errors import UsageError
from pipelines.sources import SOURCES, Source
from pipelines.sources.tiny_world import SCENE_WORDS, STYLE_WORDS, Picture, render, template
from pipelines.sources.tiny_world.domains import DOMAINS
from pipelines.sources.tiny_world.domains.face import hair, hats, traits
from pipelines.sources.tiny_world.draws import Draws
from pipelines.sources.tiny_world.scenes import SCENES
from pipelines.sources.tiny_world.source import SceneName, StyleName
from pipelines.sources.tiny_world.styles import STYLES

ROOT = Path(__file__).parents[2]
PINNED: dict[tuple[int, str, str, int], list[list[int]]] = {
    (0, "photo", "beach", 0): [
        [105, 174, 195], [140, 131, 144], [141, 188, 207],
        [116, 157, 173], [92, 52, 41], [108, 167, 192],
        [236, 182, 112], [155, 89, 42], [229, 185, 121],
    ],
    (5, "sketch", "forest", 1): [
        [176, 176, 176], [155, 155, 155], [169, 169, 169],
        [152, 152, 152], [95, 95, 95], [169, 169, 169],
        [156, 156, 156], [111, 111, 111], [161, 161, 161],
    ],
    (60, "painting", "night", 2): [
        [51, 25, 55], [87, 26, 35], [30, 11, 55],
        [80, 26, 30], [145, 67, 25], [93, 40, 45],
        [139, 79, 33], [177, 119, 26], [146, 87, 34],
    ],
    (11, "pixel_art", "snow", 3): [
        [173, 195, 220], [115, 132, 155], [162, 185, 210],
        [91, 98, 102], [86, 61, 51], [80, 89, 92],
        [169, 134, 125], [103, 59, 42], [156, 127, 116],
    ],
    (71, "photo", "plain", 4): [
        [249, 219, 192], [198, 152, 130], [191, 163, 142],
        [220, 184, 160], [199, 158, 139], [152, 116, 99],
        [195, 163, 157], [124, 70, 108], [149, 116, 121],
    ],
}  # fmt: skip


def source(**fields: Any) -> Source:
    cls = SOURCES.get("tiny_world")
    return cls(validate(cls.Config, {"name": "tiny_world", **fields}, "source"))


def face(identity: int, style: str = "photo", scene: str = "plain", pose: int = 0, **options: Any) -> Picture:
    return render("face", identity, style, scene, pose, **options)


def people(split: str, n: int, seed: int = 0) -> list[traits.Traits]:
    return [traits.draw_traits(Draws(seed, "face", split, i, "traits")) for i in range(n)]


def digest() -> str:
    """Of pictures in every style and scene."""
    cases = [(i, style, scene) for i, (style, scene) in enumerate(zip([*STYLES] * 5, [*SCENES] * 4, strict=True))]
    pictures = [face(i, style, scene, i) for i, style, scene in cases]
    return hashlib.sha256(
        b"".join(p.rgb.tobytes() + p.mask.tobytes() + p.caption.encode() for p in pictures)
    ).hexdigest()


def test_same_pictures_in_another_process() -> None:
    code = "from tests.sources.test_tiny_world import digest; print(digest())"
    environment = {**os.environ, "PYTHONHASHSEED": "123", "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == digest()


@pytest.mark.parametrize("style", STYLES)
def test_mask_is_exactly_what_no_scene_changes(style: str) -> None:
    """The subject hides the scene where the mask is 255, and nowhere else."""
    pictures = [face(3, style, scene, 1) for scene in SCENES]
    mask = pictures[0].mask
    assert all((p.mask == mask).all() for p in pictures)
    stack = np.stack([p.rgb for p in pictures]).astype(int)
    spread = (stack.max(0) - stack.min(0)).max(-1)
    assert (spread[mask == 255] == 0).all()
    assert (spread[mask == 0] > 8).mean() > 0.97
    assert 0.25 < (mask >= 128).mean() < 0.85


def test_mask_is_coverage_where_a_pixel_is_shared() -> None:
    """In a photo an edge pixel is subject x cover + scene x (1 - cover)."""
    day, night = (face(3, "photo", scene, 1) for scene in ("beach", "night"))
    mask = day.mask / 255
    edge = (mask > 0.1) & (mask < 0.9)
    assert edge.sum() > 30
    change = np.abs(day.rgb.astype(float) - night.rgb).mean(-1)
    assert np.corrcoef(change[edge], 1 - mask[edge])[0, 1] > 0.5


def test_mask_covers_face_hair_and_body() -> None:
    for i in range(12):
        mask = face(i, pose=i).mask
        assert mask[60:, 24:40].min() == 255  # the body reaches the lower edge
        assert mask[28:40, 29:35].min() == 255  # the face
        assert mask[:2, :2].max() == 0


def test_identities_differ_and_splits_never_meet() -> None:
    known: set[traits.Traits] = set()
    for split in ("train", "val", "test"):
        known |= set(people(split, 700))
    known |= set(people("train", 700, seed=1))
    assert len(known) == 4 * 700


def test_the_space_of_identities_is_large() -> None:
    tables = (traits.SKINS, traits.HAIR, traits.STYLES, traits.EYES, traits.SHAPES, traits.BEARDS, traits.GLASSES)
    assert math.prod(map(len, tables)) > 10**6
    seen = people("train", 3000)
    kinds = {(t.skin_name, t.hair, t.hair_color_name, t.eye_name, t.shape, t.beard, t.glasses, t.hat) for t in seen}
    assert len(kinds) > 2970  # even the words alone hardly repeat
    for names, field in (
        (traits.STYLES, "hair"),
        (traits.HATS, "hat"),
        (traits.BEARDS, "beard"),
        (traits.SKINS, "skin_name"),
    ):
        assert {getattr(t, field) for t in seen} == set(names)


def test_one_person_stays_and_another_does_not() -> None:
    """The face's colours are nearer within a person than between people, whatever the pose."""

    def skin_and_hair(identity: int, pose: int) -> NDArray[np.float64]:
        picture = face(identity, pose=pose)
        return np.concatenate([picture.rgb[34:40, 26:38].mean((0, 1)), picture.rgb[12:22, 22:42].mean((0, 1))])

    features = np.array([[skin_and_hair(i, k) for k in range(4)] for i in range(15)])
    centres = features.mean(1)
    within = np.linalg.norm(features - centres[:, None], axis=-1).mean()
    between = np.linalg.norm(centres[:, None] - centres[None], axis=-1)[~np.eye(15, dtype=bool)].mean()
    assert between > 2.5 * within


def test_poses_differ() -> None:
    assert len({face(0, pose=k).rgb.tobytes() for k in range(8)}) == 8


def test_styles_look_like_themselves() -> None:
    for i in range(4):
        sketch = face(i, "sketch", "beach").rgb
        assert (sketch == sketch[..., :1]).all()
        assert sketch.min() < 45  # strong lines
        assert sketch.max() > 230
        pixels = face(i, "pixel_art", "beach").rgb
        assert (pixels[::2, ::2] == pixels[1::2, 1::2]).all()
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) < 70
        assert np.abs(face(i, "painting", "beach").rgb.astype(int) - face(i, "photo", "beach").rgb).mean() > 8


@pytest.mark.parametrize("name", sorted(hair.FRONT))
def test_every_hair_and_hat_draws_in_every_style(name: str) -> None:
    assert set(hair.FRONT) == set(traits.STYLES)
    assert set(hats.HATS) == set(traits.HATS) - {"none"}
    seen = people("train", 400)
    numbers = [i for i, t in enumerate(seen) if t.hair == name][:4]
    for number, style in zip(numbers, STYLES, strict=True):
        assert face(number, style, "forest").mask.any()


def test_captions_say_what_is_there() -> None:
    picture = face(0, "sketch", "beach")
    assert picture.template == "a pencil sketch of {} on the beach" == template("sketch", "beach")
    assert picture.caption.startswith("a pencil sketch of a person with ")
    assert " on the beach, " in picture.caption
    assert len(picture.attributes) >= 5
    for word in picture.attributes:
        assert picture.caption.count(word) == 1
    assert template("photo", "plain") == "a photo of {}"
    for style in STYLE_WORDS:
        assert all(template(style, scene).count("{}") == 1 for scene in SCENE_WORDS)


def test_captions_have_the_right_article() -> None:
    said = {word for t in people("train", 600) for word in t.words()}
    assert {"an oval face", "an auburn quiff", "a round face"} <= said
    assert not any(word.startswith(("a a", "a o", "an b", "an r")) for word in said)


def test_captions_do_not_name_what_a_headscarf_hides() -> None:
    covered = [t for t in people("train", 600) if t.hat == "headscarf"]
    assert covered
    for t in covered:
        assert not any("hair" in word or "earring" in word for word in t.words())


def test_names_agree_everywhere() -> None:
    assert set(get_args(StyleName)) == set(STYLES) == set(STYLE_WORDS)
    assert set(get_args(SceneName)) == set(SCENES) == set(SCENE_WORDS)
    assert "face" in DOMAINS.names()
    for name in DOMAINS.names():
        assert DOMAINS.get(name).name == name


@pytest.mark.parametrize("size", [32, 72, 128])
def test_other_sizes(size: int) -> None:
    for style in STYLES:
        picture = face(1, style, "snow", size=size)
        assert picture.rgb.shape == (size, size, 3)
        assert picture.mask.shape == (size, size)
    small = np.asarray(Image.fromarray(face(1, size=128).rgb).reduce(2), dtype=int)
    assert np.abs(small - face(1).rgb).mean() < 6  # the same picture


# --- as a source


def test_items_are_numbered_and_labelled() -> None:
    items = list(source(identities=3, images_per_identity=2, split="val").items())
    assert [item.id for item in items][:3] == ["face/val/000000/000", "face/val/000000/001", "face/val/000001/000"]
    assert len(items) == 6
    assert items[5].labels["identity"] == "face-val-000002"
    assert items[5].labels["split"] == "val"
    assert {item.labels["style"] for item in items} <= set(STYLES)


def test_limit() -> None:
    assert len(list(source().items(5))) == 5
    assert len(list(source(limit=3).items(5))) == 3
    assert len(list(source(identities=2).items())) == 8


def test_an_identity_goes_through_all_styles_and_scenes() -> None:
    items = list(source(identities=2, images_per_identity=20).items())
    for mine in (items[:20], items[20:]):
        assert {item.labels["style"] for item in mine[:4]} == set(STYLES)
        assert len({(item.labels["style"], item.labels["scene"]) for item in mine}) == 20
    square = list(
        source(identities=1, images_per_identity=4, styles=["photo", "sketch"], scenes=["snow", "night"]).items()
    )
    assert len({(item.labels["style"], item.labels["scene"]) for item in square}) == 4


def test_photos_only() -> None:
    items = list(source(styles=["photo"], identities=4, images_per_identity=5).items())
    assert {item.labels["style"] for item in items} == {"photo"}
    assert len({item.labels["scene"] for item in items}) == 5


def test_growing_keeps_what_was_there() -> None:
    small = {item.id: item for item in source(identities=2, images_per_identity=3).items()}
    large = {item.id: item for item in source(identities=5, images_per_identity=9).items()}
    assert all(large[name] == item for name, item in small.items())


def test_etags_follow_what_changes_the_pixels() -> None:
    def tags(**fields: Any) -> list[str]:
        return [item.etag for item in source(identities=1, **fields).items()]

    assert tags() == tags()
    for change in ({"seed": 1}, {"image_size": 128}, {"styles": ["photo"]}):
        assert tags(**change) != tags()


def test_reading_gives_the_rendered_picture() -> None:
    world = pickle.loads(pickle.dumps(source(identities=2, seed=5, split="test")))
    item = list(world.items())[5]
    raw = world.read(item)
    expected = face(1, item.labels["style"], item.labels["scene"], 1, split="test", seed=5)
    assert (np.asarray(Image.open(io.BytesIO(raw.image))) == expected.rgb).all()
    assert (np.asarray(Image.open(io.BytesIO(raw.mask))) == expected.mask).all()
    assert (raw.caption, raw.template) == (expected.caption, expected.template)
    assert raw.labels == {"attributes": list(expected.attributes)}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"domain": "fase"}, "no domain is called 'fase'; did you mean 'face'"),
        ({"styles": ["foto"]}, "styles"),
        ({"styles": []}, "styles"),
        ({"identities": 0}, "identities: 0"),
        ({"image_size": 60}, "image_size: 60"),
        ({"split": "dev"}, "split"),
        ({"imges_per_identity": 2}, "did you mean 'images_per_identity'"),
    ],
)
def test_wrong_configurations(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        source(**fields)


def test_render_refuses_unknown_names() -> None:
    with pytest.raises(UsageError, match="no style is called 'sketsch'; did you mean 'sketch'"):
        face(0, "sketsch")
    with pytest.raises(UsageError, match="no scene is called 'beech'; did you mean 'beach'"):
        face(0, scene="beech")


def test_draws_are_named_streams() -> None:
    assert Draws("a", 1).units(5).tolist() == Draws("a", 1).units(5).tolist()
    assert Draws("a", 1).unit() != Draws("a", 2).unit()
    assert Draws("a1").unit() != Draws("a", 1).unit()
    values = Draws("spread").units(20_000)
    assert abs(values.mean() - 0.5) < 0.01
    assert values.min() >= 0
    assert values.max() < 1
    draws = Draws("w")
    share = sum(draws.weighted({"a": 3, "b": 1}) == "a" for _ in range(4000)) / 4000
    assert abs(share - 0.75) < 0.03
    assert sorted(Draws("s").shuffled(range(10))) == list(range(10))


@pytest.mark.parametrize("case", PINNED, ids=str)
def test_pictures_stay_as_they_are(case: tuple[int, str, str, int]) -> None:
    """Mean colours of the nine thirds; when this changes on purpose, raise ``render.VERSION`` and pin anew."""
    assert np.abs(thirds(face(*case)) - np.array(PINNED[case])).max() <= 4


def thirds(picture: Picture) -> NDArray[np.float64]:
    """(9, 3) mean colours of a 3 x 3 grid."""
    rows = [block for row in np.array_split(picture.rgb.astype(float), 3) for block in np.array_split(row, 3, axis=1)]
    return np.stack([block.mean((0, 1)) for block in rows])
