"""Crops of faces: where the published formulas put them, whatever way the face is turned, with nothing made up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from e4t_core.backbones._align import Placement, arcface_placement, cut, ffhq_quad, quad_placement
from tests.support.corpus import noise
from tests.support.detectors import dots, drawn, turned

TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
POINTS = arrays(np.float64, (5, 2), elements=st.floats(-200, 200))
Points = NDArray[np.float64]


def waves(x: Points, y: Points) -> Points:
    """(..., 3) a smooth picture without end."""
    r = 128 + 60 * np.sin(x / 31 + 0.3) + 50 * np.cos(y / 23)
    g = 128 + 100 * np.sin((x + y) / 41)
    b = 128 + 60 * np.cos((x - 2 * y) / 47) + 40 * np.sin(y / 29)
    return np.stack([r, g, b], -1)


def photographed(angle: float, scale: float, size: tuple[int, int] = (400, 400)) -> tuple[Image.Image, Points]:
    """The smooth picture and the face in it, turned and scaled together about the middle; exact at every pixel."""
    middle = (np.array(size) - 1) / 2
    turn = scale * np.exp(1j * np.radians(angle))
    rows, columns = np.mgrid[: size[1], : size[0]]
    there = ((columns - middle[0]) + 1j * (rows - middle[1])) / turn
    picture = Image.fromarray(waves(there.real, there.imag).round().clip(0, 255).astype(np.uint8))
    return picture, turned(angle, scale, tuple(middle))


def levels(image: Image.Image) -> NDArray[np.int64]:
    return np.asarray(image).astype(np.int64)


# --- FFHQ


def published_quad(points: Points) -> Points:
    """The crop of FFHQ's preparation, in vectors, as its authors describe it."""
    left_eye, right_eye, _, left_mouth, right_mouth = points
    eye_avg, eye_to_eye = (left_eye + right_eye) / 2, right_eye - left_eye
    eye_to_mouth = (left_mouth + right_mouth) / 2 - eye_avg
    x = eye_to_eye - np.array([-eye_to_mouth[1], eye_to_mouth[0]])
    x = x / np.hypot(*x) * max(np.hypot(*eye_to_eye) * 2.0, np.hypot(*eye_to_mouth) * 1.8)
    y = np.array([-x[1], x[0]])
    c = eye_avg + eye_to_mouth * 0.1
    return np.stack([c - x - y, c - x + y, c + x + y, c + x - y])


@given(POINTS)
@settings(deadline=None)
def test_the_quad_is_ffhqs(points: Points) -> None:
    along = points[1] - points[0]
    down = points[3:].mean(0) - points[:2].mean(0)
    assume(np.hypot(*(along - np.array([-down[1], down[0]]))) > 1)
    np.testing.assert_allclose(ffhq_quad(points), published_quad(points), atol=1e-6)


def test_an_upright_face_has_an_upright_square_around_it() -> None:
    quad = ffhq_quad(turned(0, 1.0, (200, 200)))  # eyes 60 apart at 170, the mouth 65 below them
    np.testing.assert_allclose(quad, [[80, 56.5], [80, 296.5], [320, 296.5], [320, 56.5]])


@pytest.mark.parametrize("angle", [-170, -90, -31, 0, 12, 45, 180])
@pytest.mark.parametrize("scale", [0.4, 1.0, 1.15])
def test_a_turned_and_scaled_picture_gives_the_same_crop(angle: float, scale: float) -> None:
    want_picture, want_points = photographed(0, 1.0)
    picture, points = photographed(angle, scale)
    for side in (64, 128):
        want = levels(cut(want_picture, quad_placement(ffhq_quad(want_points), side), (side, side)))
        got = levels(cut(picture, quad_placement(ffhq_quad(points), side), (side, side)))
        inside = slice(side // 8, -side // 8)  # the edge may be in the mirror
        assert np.abs(got - want)[inside, inside].max() <= 6
        assert np.abs(got - want)[inside, inside].mean() < 0.6


def test_the_crop_shows_what_the_quad_holds() -> None:
    picture, points = photographed(25, 1.0)
    side, quad = 100, ffhq_quad(points)
    got = levels(cut(picture, quad_placement(quad, side), (side, side)))
    right, down = (quad[3] - quad[0]) / side, (quad[1] - quad[0]) / side
    rows, columns = np.mgrid[:side, :side] + 0.5
    at = quad[0] + columns[..., None] * right + rows[..., None] * down
    there = ((at[..., 0] - 199.5) + 1j * (at[..., 1] - 199.5)) / np.exp(1j * np.radians(25))
    want = waves(there.real, there.imag)
    seen = ((at > 1) & (at < 398)).all(-1)
    assert seen.mean() > 0.8
    assert np.abs(got - want)[seen].max() <= 3


# --- cutting


def test_nothing_changes_where_neither_scale_nor_turn_do() -> None:
    picture = noise(96)
    got = cut(picture, Placement(10 + 20j, 1 + 0j), (40, 30))
    assert np.array_equal(np.asarray(got), np.asarray(picture)[20:50, 10:50])


def test_a_quarter_turn_is_exact() -> None:
    picture = noise(96)
    got = cut(picture, Placement(70 + 10j, 1j), (40, 30))
    assert np.array_equal(np.asarray(got), np.rot90(np.asarray(picture)[10:50, 40:70]))


def test_a_smaller_crop_does_not_alias() -> None:
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 255
    got = levels(cut(Image.fromarray(stripes), quad_placement(ffhq_quad(turned(20, 0.8, (200, 200))), 32), (32, 32)))
    assert np.abs(got - 127.5).max() < 12


@pytest.mark.parametrize("at", [(-30, 5), (70, -20), (-30, -30), (60, 70)])
def test_outside_the_picture_it_is_mirrored_or_black(at: tuple[int, int]) -> None:
    picture, (x, y) = noise(96), at
    pixels, size = np.asarray(picture), (50, 60)
    for outside, mode in (("mirror", "reflect"), ("black", "constant")):
        wide = np.pad(pixels, ((90, 90), (90, 90), (0, 0)), mode)
        got = cut(picture, Placement(complex(x, y), 1 + 0j), size, outside)
        assert np.array_equal(np.asarray(got), wide[90 + y : 150 + y, 90 + x : 140 + x])


def test_a_crop_that_leaves_a_large_picture_is_mirrored_too() -> None:
    picture, _ = photographed(0, 1.0, (800, 800))
    wide = Image.fromarray(np.pad(np.asarray(picture), ((300, 300), (300, 300), (0, 0)), "reflect"))
    step = 9 * np.exp(0.2j)
    got = levels(cut(picture, Placement(-60 - 80j, step), (64, 64)))
    want = levels(cut(wide, Placement(240 + 220j, step), (64, 64)))
    assert np.abs(got - want).mean() < 1.5


def test_masks_are_cut_like_pictures() -> None:
    picture = noise(96)
    place = quad_placement(ffhq_quad(turned(30, 0.5, (40, 40))), 32)
    grey = picture.convert("L")
    assert np.array_equal(
        np.asarray(cut(grey, place, (32, 32))), np.asarray(cut(Image.merge("RGB", [grey] * 3), place, (32, 32)))[..., 0]
    )


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (Placement(96 + 0j, 1 + 0j), "beside the picture"),
        (Placement(0 - 64j, 1 + 0j), "beside the picture"),
        (Placement(-5e8 - 5e8j, 1e7 + 0j), "640000000 pixels long, the picture 96"),
    ],
)
def test_a_crop_that_no_picture_can_fill_is_refused(place: Placement, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cut(noise(96), place, (64, 64))


@pytest.mark.parametrize("points", [np.zeros((5, 2)), np.full((5, 2), 7.0) + 1e-6 * turned(), np.full((5, 2), np.nan)])
def test_points_that_span_nothing_are_refused(points: Points) -> None:
    with pytest.raises(ValueError, match=r"lie within a pixel|no numbers"):
        ffhq_quad(points)
    with pytest.raises(ValueError, match=r"lie within a pixel|no numbers"):
        arcface_placement(points, 112)


# --- ArcFace


def umeyama(source: Points, target: Points) -> Points:
    """(2, 3) of Umeyama 1991, eqs. 38 to 43: the similarity that takes ``source`` nearest to ``target``."""
    mu_x, mu_y = source.mean(0), target.mean(0)
    x, y = source - mu_x, target - mu_y
    u, d, vt = np.linalg.svd(y.T @ x / len(x))
    s = np.diag([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt)) or 1.0])
    rotation = u @ s @ vt
    c = np.trace(np.diag(d) @ s) / (x**2).sum(1).mean()
    return np.column_stack([c * rotation, mu_y - c * rotation @ mu_x])


@given(POINTS)
@settings(deadline=None)
def test_the_placement_is_umeyamas(points: Points) -> None:
    centred = points - points.mean(0)
    assume(np.abs(centred @ [1, 1j]).max() > 1)
    assume(abs(np.vdot(centred @ [1, 1j], (TEMPLATE - TEMPLATE.mean(0)) @ [1, 1j])) > 100)
    matrix = umeyama(points, TEMPLATE)
    assume(np.linalg.det(matrix[:, :2]) > 1e-3)
    place = arcface_placement(points, 112)
    in_crop = points @ matrix[:, :2].T + matrix[:, 2]
    back = place.origin + place.step * ((in_crop + 0.5) @ [1, 1j]) - (0.5 + 0.5j)
    np.testing.assert_allclose(np.stack([back.real, back.imag], -1), points, atol=1e-6)


def test_points_on_the_template_are_not_moved() -> None:
    picture = noise(112)
    assert np.array_equal(np.asarray(cut(picture, arcface_placement(TEMPLATE, 112), (112, 112))), np.asarray(picture))


@pytest.mark.parametrize("angle", [-60, 0, 35])
@pytest.mark.parametrize("side", [112, 224])
def test_eyes_and_mouth_come_to_where_arcface_has_them(angle: float, side: int) -> None:
    points = turned(angle, 1.2, (200, 180))
    place = arcface_placement(points, side)
    got = dots(np.asarray(cut(drawn((400, 360), points), place, (side, side), "black"))) * 112 / side
    assert np.abs(got - TEMPLATE).max() < 6  # the drawn face is not quite the template's shape
    assert np.abs((got - TEMPLATE).mean(0)).max() < 0.7
