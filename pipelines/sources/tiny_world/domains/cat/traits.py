"""What makes a cat this cat: drawn once from the identity's own stream, the same in all of its pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipelines.sources.tiny_world.draws import Draws
from pipelines.sources.tiny_world.grammar import colored
from pipelines.sources.tiny_world.hues import HUES, jitter
from pipelines.sources.tiny_world.pen import Color, apart

WHITE: Color = (248, 246, 242)
FURS: dict[str, tuple[Color, float]] = {"black": ((46, 42, 52), 1.3), "grey": ((126, 132, 146), 1.3),
    "silver": ((188, 194, 206), 1), "white": (WHITE, 1), "cream": ((246, 220, 178), 1), "golden": ((226, 172, 84), 1),
    "ginger": ((230, 126, 44), 1.5), "auburn": ((156, 72, 42), 1), "brown": ((122, 82, 54), 1.2),
    "beige": ((206, 180, 148), 0.8)}  # fmt: skip
SECOND: dict[str, tuple[str, ...]] = {  # the marking colours that stand out from a fur
    "black": ("ginger", "golden", "auburn"), "grey": ("cream", "ginger", "brown"),
    "silver": ("grey", "black", "ginger"),
    "white": ("black", "grey", "ginger", "brown", "golden"), "cream": ("brown", "grey", "black", "auburn", "ginger"),
    "golden": ("black", "brown", "auburn"), "ginger": ("black", "brown"), "auburn": ("black", "golden"),
    "brown": ("black", "golden", "ginger"), "beige": ("brown", "black", "grey", "auburn"),
}  # fmt: skip
COATS: dict[str, tuple[str, float]] = {
    "solid": ("solid {fur} fur", 1.6), "tabby": ("{fur} tabby fur", 2.2), "spotted": ("spotted {fur} fur", 1.3),
    "tuxedo": ("{fur} tuxedo fur", 1.3), "patched": ("white and {second} patched fur", 1.4),
    "calico": ("{second} and {third} calico fur", 1.3), "siamese": ("{fur} siamese fur with a {second} face", 1.4),
    "speckled": ("{fur} and {second} speckled fur", 1),
}  # fmt: skip
EYES: dict[str, tuple[Color, float]] = {"amber": ((238, 158, 32), 1.3), "gold": ((246, 206, 60), 1.3),
    "green": ((112, 192, 72), 1.4), "teal": ((48, 184, 168), 0.8), "blue": ((70, 156, 240), 1.2),
    "copper": ((200, 98, 36), 0.9), "odd": ((70, 156, 240), 0.4)}  # fmt: skip
EARS: dict[str, tuple[float, float, float, float]] = {  # height, half width, where (0 top to 1 side), how round
    "large pointed": (0.86, 0.37, 0.5, 0.0), "small pointed": (0.52, 0.31, 0.55, 0.0),
    "tall thin": (1.02, 0.27, 0.38, 0.2), "wide": (0.64, 0.47, 0.62, 0.15), "small round": (0.46, 0.33, 0.58, 0.5),
    "large round": (0.7, 0.44, 0.58, 0.5),
}  # fmt: skip
SHAPES: dict[str, tuple[float, float, float]] = {  # half width, height of the cheeks, half width of the chin
    "round": (0.98, 0.18, 0.52), "wide": (1.1, 0.24, 0.5), "narrow": (0.84, 0.1, 0.36),
    "triangular": (0.96, -0.04, 0.26), "square": (0.96, 0.34, 0.68),
}  # fmt: skip
NOSES: dict[str, tuple[Color, float]] = {"pink": ((240, 130, 146), 2), "black": ((44, 34, 38), 1),
    "red": ((190, 74, 62), 1)}  # fmt: skip
TAILS: dict[str, tuple[str, float]] = {
    "thin": ("a thin tail", 1.2), "fluffy": ("a fluffy tail", 1), "curly": ("a curly tail", 1),
    "short": ("a short tail", 0.7),
}  # fmt: skip
NECKWEAR: dict[str, tuple[str, float]] = {"none": ("", 4), "necklace": ("a {} necklace", 1.6),
    "scarf": ("a {} scarf", 1.1), "tie": ("a {} tie", 0.8)}  # fmt: skip

Patch = tuple[float, float, float, bool]
"""Of colour on white fur: x, y in head units, its radius, whether it has the third colour."""


@dataclass(frozen=True)
class Traits:
    """A cat. Lengths are in head units (about half the height of the face)."""

    coat: str
    fur_name: str
    fur: Color
    second_name: str
    second: Color
    third_name: str
    third: Color
    bib: bool
    patches: tuple[Patch, ...]
    marks: int
    mark_width: float
    long_hair: bool
    shape: str
    width: float
    cheeks: float
    chin: float
    ears: str
    ear_size: float
    eye_name: str
    iris: tuple[Color, Color]
    eye_size: float
    eye_open: float
    eye_gap: float
    eye_tilt: float
    nose_name: str
    nose: Color
    muzzle: float
    whiskers: float
    tail: str
    neckwear: str
    cloth_name: str
    cloth: Color

    @property
    def white_muzzle(self) -> bool:
        """Chin, chest and paws are white."""
        return self.bib or self.coat in ("tuxedo", "patched", "calico")

    def words(self) -> tuple[str, ...]:
        """Attributes that a caption can name, the most telling first; the eyes have :meth:`eye_words`."""
        coat = colored(COATS[self.coat][0], fur=self.fur_name, second=self.second_name, third=self.third_name)
        if self.long_hair:
            coat = f"fluffy {coat}"
        worn = colored(NECKWEAR[self.neckwear][0], self.cloth_name)
        extra = (
            "a white chin" if self.bib else "",
            f"{self.ears} ears",
            f"a {self.shape} {'head' if self.coat == 'siamese' else 'face'}",
            TAILS[self.tail][0],
            f"a {self.nose_name} nose",
            "long whiskers" if self.whiskers > 0.75 else "",
        )
        return tuple(word for word in (coat, worn, *extra) if word)

    def eye_words(self) -> str:
        """What a caption says about open eyes."""
        return "one blue eye and one amber eye" if self.eye_name == "odd" else f"{self.eye_name} eyes"


def draw_traits(draws: Draws) -> Traits:
    """A new cat from the stream ``draws``."""
    fur = _fur(draws)
    return Traits(**fur, **_head(draws), **_eyes(draws), **_details(draws, fur["fur"]))


def _fur(draws: Draws) -> dict[str, Any]:
    coat = draws.named(COATS)
    fur = _fur_of(coat, draws)
    second = draws.choice(SECOND[fur])
    third = "black" if second in ("ginger", "golden") else draws.choice(("ginger", "golden"))
    return {
        "coat": coat, "fur_name": fur, "fur": jitter(FURS[fur][0], draws, 7),
        "second_name": second, "second": jitter(FURS[second][0], draws, 7),
        "third_name": third, "third": jitter(FURS[third][0], draws, 7),
        "bib": coat in ("tabby", "solid", "spotted") and fur not in ("white", "cream", "silver") and draws.chance(0.35),
        "patches": _patches(draws), "marks": 2 + draws.below(3), "mark_width": draws.uniform(0.8, 1.25),
        "long_hair": draws.chance(0.4),
    }  # fmt: skip


def _fur_of(coat: str, draws: Draws) -> str:
    """A fur on which the coat's markings show."""
    if coat in ("patched", "calico"):
        return "white"
    if coat == "siamese":
        return draws.choice(("cream", "white", "beige"))
    darkest = {
        "tabby": ("black", "white"),
        "spotted": ("black", "white"),
        "tuxedo": ("white", "cream", "silver", "beige"),
    }
    return draws.named({name: row for name, row in FURS.items() if name not in darkest.get(coat, ())})


def _patches(draws: Draws) -> tuple[Patch, ...]:
    """Over one eye, over the other ear, one on the brow or none, and down the body."""
    side = draws.sign()
    over_eye = (side * draws.uniform(0.4, 0.62), draws.uniform(-0.3, 0.05), draws.uniform(0.42, 0.6), False)
    over_ear = (-side * draws.uniform(0.5, 0.85), draws.uniform(-0.85, -0.45), draws.uniform(0.3, 0.5), True)
    cheek = (-side * draws.uniform(0.6, 0.9), draws.uniform(0.2, 0.5), draws.uniform(0.16, 0.32), draws.chance(0.5))
    flank = (draws.sign() * draws.uniform(0.6, 1.0), draws.uniform(1.3, 1.9), draws.uniform(0.34, 0.5), True)
    chest = (draws.uniform(-0.4, 0.4), draws.uniform(1.1, 1.5), draws.uniform(0.2, 0.34), False)
    kept = [patch for patch in (cheek, chest) if draws.chance(0.6)]
    return (over_eye, over_ear, flank, *kept)


def _head(draws: Draws) -> dict[str, Any]:
    shape = draws.choice(tuple(SHAPES))
    width, cheeks, chin = SHAPES[shape]
    return {
        "shape": shape, "width": width * draws.uniform(0.97, 1.03), "cheeks": cheeks, "chin": chin,
        "ears": draws.choice(tuple(EARS)), "ear_size": draws.uniform(0.92, 1.1),
        "muzzle": draws.uniform(0.85, 1.2), "whiskers": draws.uniform(0.45, 1.0),
    }  # fmt: skip


def _eyes(draws: Draws) -> dict[str, Any]:
    eye = draws.named(EYES)
    first = jitter(EYES[eye][0], draws, 8)
    return {"eye_name": eye, "iris": (first, EYES["amber"][0] if eye == "odd" else first),
        "eye_size": draws.uniform(0.25, 0.32), "eye_open": draws.uniform(0.7, 1.0),
        "eye_gap": draws.uniform(0.42, 0.48), "eye_tilt": draws.uniform(0.0, 0.3)}  # fmt: skip


def _details(draws: Draws, fur: Color) -> dict[str, Any]:
    nose = draws.named(NOSES)
    seen = [name for name, color in HUES.items() if apart(color, fur) > 110 and apart(color, WHITE) > 60]
    cloth = draws.choice(seen)
    return {"nose_name": nose, "nose": jitter(NOSES[nose][0], draws, 6), "tail": draws.named(TAILS),
        "neckwear": draws.named(NECKWEAR), "cloth_name": cloth, "cloth": HUES[cloth]}  # fmt: skip
