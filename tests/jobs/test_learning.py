"""What the shipped stack must be able to do: learn people nobody trained on, from one photo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from e4t_core.metrics._statistics import bootstrap_difference
from jobs.__main__ import start
from jobs._aggregates import identity_means

PROMPTS = (
    "generate.prompts=["
    "{name: photo, template: 'a photo of {}', concept_less: a photo},"
    "{name: sketch, template: 'a pencil sketch of {}', concept_less: a pencil sketch, kind: style},"
    "{name: snow, template: 'a photo of {} in the snow', concept_less: a photo of the snow, kind: background}]"
)
TRAINING = ("train.steps=1", "train.batch_size=4", "train.base_lr=1.0e-12", "workers.threads=1")
"""No pre-trained encoder ships yet, so what is measured is tuning alone, from an encoder that has learned nothing."""


def road(folder: Path, people: int, *sets: str) -> pd.DataFrame:
    """Score rows of unseen people, personalized by the ordinary commands."""
    over = (PROMPTS, *TRAINING, f"source.identities={people}", f"personalize.max_identities={people}", *sets)
    shared = ["--recipe", "nightly_tiny", *(word for text in over for word in ("--set", text)), "--yes"]
    shards = ["--shards", str(folder.parent / "people")]
    model = ["--checkpoint", str(folder.parent / "module")]

    def made(name: str) -> str:
        return str(folder / name)

    start("preprocess", [*shared, "--out", shards[1]])
    start("pretrain", [*shared, *shards, "--out", model[1]])
    start("personalize", [*shared, *shards, *model, "--out", made("adapters")])
    start("generate", [*shared, *shards, *model, "--adapters", made("adapters"), "--out", made("images")])
    done: dict[str, Any] = start("evaluate", [*shared, *shards, "--images", made("images"), "--out", made("scores")])
    return pd.read_parquet(done["rows"])


@pytest.mark.parametrize("people", [6, pytest.param(24, marks=pytest.mark.full)])
def test_tuning_on_one_photo_brings_out_the_person(people: int, tmp_path: Path, ray_local: None) -> None:
    """E4T's claim: 15 steps raise likeness on people never seen, and prompts still work."""
    untuned = road(tmp_path / "untuned", people, "method.personalize.tune=none")
    tuned = road(tmp_path / "tuned", people)
    before, after = (identity_means(rows, "identity") for rows in (untuned, tuned))
    assert len(after) == people
    gain = bootstrap_difference(after, before, samples=2000, confidence=0.95)
    assert gain.low > 0, f"ID {gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
    prompts = [rows["score_clip_t"].mean() for rows in (tuned, untuned)]
    assert prompts[0] >= 0.9 * prompts[1], f"CLIP-T {prompts[0]:.3f} against {prompts[1]:.3f} untuned"
