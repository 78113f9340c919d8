"""What makes a person this person: drawn once from the identity's own stream, the same in all of its pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipelines.sources.tiny_world.draws import Draws
from pipelines.sources.tiny_world.grammar import colored
from pipelines.sources.tiny_world.hues import HUES, jitter
from pipelines.sources.tiny_world.pen import Color, darker, mix

SKINS: dict[str, Color] = {"pale": (255, 226, 208), "fair": (250, 210, 182), "light": (240, 192, 156),
    "olive": (214, 170, 124), "tan": (200, 144, 100), "bronze": (176, 116, 74), "brown": (142, 90, 58),
    "dark": (104, 64, 44), "deep": (76, 46, 34)}  # fmt: skip
HAIR: dict[str, tuple[Color, float]] = {"black": ((34, 28, 36), 3), "dark brown": ((70, 42, 28), 3),
    "brown": ((116, 70, 40), 2.5), "auburn": ((140, 52, 30), 1.5), "red": ((206, 78, 28), 2),
    "blond": ((232, 186, 92), 2.5), "platinum": ((246, 230, 186), 1), "grey": ((150, 150, 156), 1.2),
    "white": ((236, 236, 240), 1), "pink": ((240, 116, 170), 0.6), "blue": ((52, 100, 208), 0.6),
    "green": ((44, 150, 100), 0.4), "purple": ((128, 66, 176), 0.5)}  # fmt: skip
EYES: dict[str, Color] = {
    "brown": (112, 66, 32), "dark": (52, 34, 28), "hazel": (150, 112, 48), "green": (58, 142, 78),
    "blue": (54, 118, 204), "grey": (120, 138, 152),
}  # fmt: skip
STYLES: dict[str, tuple[str, float]] = {
    "bald": ("a bald head", 1), "buzz": ("very short {} hair", 1), "short": ("short {} hair", 2),
    "quiff": ("a {} quiff", 1.5), "spiky": ("spiky {} hair", 1.3), "curly": ("curly {} hair", 2),
    "afro": ("a {} afro", 1.5), "bob": ("a {} bob", 2), "long": ("long {} hair", 2), "wavy": ("long wavy {} hair", 2),
    "fringe": ("long {} hair with a fringe", 1.8), "bun": ("a {} bun", 1.5), "ponytail": ("a {} ponytail", 1.4),
    "pigtails": ("{} pigtails", 1.2), "mohawk": ("a {} mohawk", 0.8), "receding": ("receding {} hair", 1),
    "locs": ("long {} locs", 1.2),
}  # fmt: skip
SHAPES: dict[str, tuple[float, float, float, float]] = {  # half width from..to, and the jaw's two exponents
    "round": (0.80, 0.88, 2.3, 2.1), "oval": (0.74, 0.80, 1.9, 1.9), "square": (0.78, 0.86, 3.6, 2.4),
    "long": (0.66, 0.72, 2.4, 2.0), "heart": (0.76, 0.84, 1.35, 1.5),
}  # fmt: skip
BEARDS: dict[str, tuple[str, float]] = {
    "none": ("", 7), "stubble": ("stubble", 0.8), "moustache": ("a moustache", 1), "goatee": ("a goatee", 0.8),
    "beard": ("a beard", 1.6), "long beard": ("a long beard", 0.8),
}  # fmt: skip
GLASSES: dict[str, tuple[str, float]] = {"none": ("", 6), "round": ("round glasses", 1.2),
    "square": ("square glasses", 1.2), "cat-eye": ("cat-eye glasses", 0.6)}  # fmt: skip
HATS: dict[str, tuple[str, float]] = {
    "none": ("", 8), "beanie": ("a {} beanie", 0.8), "cap": ("a {} cap", 0.7), "wide hat": ("a wide {} hat", 0.6),
    "headscarf": ("a {} headscarf", 0.7), "headband": ("a {} headband", 0.5), "flower": ("a {} flower", 0.4),
}  # fmt: skip
EARRINGS: dict[str, tuple[str, float]] = {"none": ("", 5), "studs": ("ear studs", 1), "hoops": ("hoop earrings", 1.2)}
FRAMES: dict[str, Color] = {
    "black": (28, 26, 32),
    "gold": (206, 152, 44),
    "red": (190, 36, 48),
    "blue": (38, 70, 170),
    "tortoise": (104, 58, 26),
}
_TALL = ("quiff", "spiky", "afro", "bun", "mohawk", "receding", "locs")
"""Hair that no hat goes over."""
_OVER_EARS = ("bob", "long", "wavy", "fringe", "locs", "curly", "receding")


@dataclass(frozen=True)
class Traits:
    """A person. Lengths are in head units (half the height of the face)."""

    skin_name: str
    skin: Color
    shape: str
    width: float
    jaw: tuple[float, float]
    hair: str
    hair_color_name: str
    hair_color: Color
    parting: int
    volume: float
    eye_name: str
    iris: Color
    eye_size: float
    eye_open: float
    eye_gap: float
    eye_tilt: float
    lashes: bool
    brow_width: float
    brow_tilt: float
    brow_arch: float
    nose: str
    nose_width: float
    nose_length: float
    mouth_width: float
    lip: float
    lip_color: Color
    beard: str
    glasses: str
    frame: Color
    hat: str
    hat_color_name: str
    hat_color: Color
    earrings: str
    ear_size: float
    freckles: bool
    mole: tuple[float, float] | None
    blush: float
    build: float

    def words(self) -> tuple[str, ...]:
        """Attributes that a caption can name, the most telling first."""
        hair = colored(STYLES[self.hair][0], self.hair_color_name)
        hat = colored(HATS[self.hat][0], self.hat_color_name)
        if self.hat == "headscarf":
            hair = ""
        named = (hair, GLASSES[self.glasses][0], BEARDS[self.beard][0], hat, EARRINGS[self.earrings][0])
        extra = (
            "freckles" if self.freckles else "",
            f"{self.eye_name} eyes",
            f"{self.skin_name} skin",
            colored("a {} face", self.shape),
        )
        return tuple(word for word in (*named, *extra) if word)


def draw_traits(draws: Draws) -> Traits:
    """A new person from the stream ``draws``."""
    skin_name = draws.choice(tuple(SKINS))
    skin = jitter(SKINS[skin_name], draws, 6)
    shape, hair, eyes, middle, details = (
        _shape(draws), _hair_and_hat(draws), _eyes(draws), _middle(draws, skin), _details(draws),
    )  # fmt: skip
    if hair["hair"] in _OVER_EARS or hair["hat"] == "headscarf":
        details["earrings"] = "none"
    return Traits(skin_name=skin_name, skin=skin, **shape, **hair, **eyes, **middle, **details)


def _shape(draws: Draws) -> dict[str, Any]:
    shape = draws.choice(tuple(SHAPES))
    low, high, n, m = SHAPES[shape]
    return {
        "shape": shape, "width": draws.uniform(low, high), "jaw": (n * draws.uniform(0.93, 1.07), m),
        "ear_size": draws.uniform(0.8, 1.25), "build": draws.uniform(0.85, 1.2),
    }  # fmt: skip


def _hair_and_hat(draws: Draws) -> dict[str, Any]:
    hair = draws.named(STYLES)
    color = draws.named(HAIR)
    hat = draws.named(HATS)
    too_tall = hair in _TALL and hat not in ("none", "headband")
    too_bare = hair in ("bald", "receding", "mohawk") and hat in ("headband", "flower")
    if too_tall or too_bare:
        hat = "none"
    hat_color = draws.choice(tuple(HUES))
    return {
        "hair": hair, "hair_color_name": color, "hair_color": jitter(HAIR[color][0], draws, 8),
        "parting": draws.sign(), "volume": draws.uniform(0.75, 1.3),
        "hat": hat, "hat_color_name": hat_color, "hat_color": HUES[hat_color],
    }  # fmt: skip


def _eyes(draws: Draws) -> dict[str, Any]:
    eye = draws.choice(tuple(EYES))
    return {"eye_name": eye, "iris": jitter(EYES[eye], draws, 10),
        "eye_size": draws.uniform(0.185, 0.24), "eye_open": draws.uniform(0.56, 0.82),
        "eye_gap": draws.uniform(0.42, 0.5), "eye_tilt": draws.uniform(-0.12, 0.22),
        "lashes": draws.chance(0.45), "brow_width": draws.uniform(0.05, 0.115),
        "brow_tilt": draws.uniform(-0.16, 0.14), "brow_arch": draws.uniform(0.01, 0.09),
        "glasses": draws.named(GLASSES), "frame": FRAMES[draws.choice(tuple(FRAMES))]}  # fmt: skip


def _middle(draws: Draws, skin: Color) -> dict[str, Any]:
    natural = mix(darker(skin, 0.12), (186, 60, 66), 0.5)
    painted = draws.choice(((204, 28, 54), (222, 84, 112), (140, 34, 66), (226, 94, 70)))
    return {"nose": draws.choice(("button", "straight", "broad", "pointed")),
        "nose_width": draws.uniform(0.85, 1.25), "nose_length": draws.uniform(0.28, 0.38),
        "mouth_width": draws.uniform(0.24, 0.34), "lip": draws.uniform(0.035, 0.085),
        "lip_color": painted if draws.chance(0.3) else natural,
        "beard": draws.named(BEARDS)}  # fmt: skip


def _details(draws: Draws) -> dict[str, Any]:
    mole = (draws.sign() * draws.uniform(0.25, 0.5), draws.uniform(0.3, 0.62))
    return {
        "earrings": draws.named(EARRINGS), "freckles": draws.chance(0.16),
        "mole": mole if draws.chance(0.14) else None, "blush": draws.uniform(0.05, 0.4),
    }  # fmt: skip
