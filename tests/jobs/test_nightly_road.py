"""`nightly` with nothing stood in for: the small stack learns people and draws them, and is caught when broken."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from e4t_core.storage import Store
from jobs import __main__ as jobs_main
from jobs import generate
from jobs._nightly.compared import compare
from jobs._nightly.history import History
from jobs._recipe import load
from tests.jobs.conftest import everything

LITTLE = (
    "source.identities=8",
    "source.images_per_identity=2",
    "personalize.max_identities=8",
    "personalize.identities_per_shard=4",
    "method.personalize.steps=3",
    "method.personalize.batch_size=4",
    "method.personalize.base_lr=8.0e-5",
    "generate.sampler.steps=5",
    "generate.prompts=[{name: photo, template: 'a photo of {}', concept_less: a photo}]",
    "nightly.methods={e4t: {checkpoint: 'bundled:e4t_face'}}",
    "nightly.bootstrap_samples=1000",
)
NO_EFFECT = ("nightly.effect=0.0", "nightly.effects={}")
BROKEN = "method.personalize.tune=none"
"""E4T without its tuning draws people of the right kind, and not the right people."""
pytestmark = [pytest.mark.full, pytest.mark.usefixtures("ray_local")]


def night(out: Path, date: str, *sets: str) -> tuple[int, dict[str, Any]]:
    over = [word for text in (*LITTLE, *sets) for word in ("--set", text)]
    done = jobs_main.start("nightly", ["--recipe", "nightly_tiny", *over, "--out", str(out), "--date", date])
    return done["exit_code"], done


def test_a_night_is_killed_and_goes_on_and_a_broken_method_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spread = generate.spread

    def killed(*args: Any) -> Iterator[Any]:
        for done in spread(*args):
            yield done
            raise KeyboardInterrupt  # one of two units is drawn

    with monkeypatch.context() as patched:
        patched.setattr(generate, "spread", killed)
        with pytest.raises(KeyboardInterrupt):
            night(tmp_path, "2026-01-01", "seed=1")
    kept = everything(tmp_path / "nights" / "2026-01-01" / "e4t")
    code, first = night(tmp_path, "2026-01-01", "seed=1")
    assert (code, first["status"]) == (0, "first")
    assert kept.items() <= everything(tmp_path / "nights" / "2026-01-01" / "e4t").items()

    before = everything(tmp_path)
    assert night(tmp_path, "2026-01-01", "seed=1")[1] == first
    assert everything(tmp_path) == before

    code, broken = night(tmp_path, "2026-01-02", "seed=2", BROKEN)
    assert code == 1
    assert {f["metric"] for f in broken["moved"] if f["verdict"] == "drop"} >= {"identity", "identity_heldout"}
    assert (tmp_path / "nights" / "2026-01-02" / "report" / "report.html").exists()
    assert "Regressed" in Store(tmp_path).read("nightly.html").decode()


@pytest.fixture(scope="module")
def twenty(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    """Nights that differ in the sampling seed: other photos, other tunings, other noise; the same people and weights.
    Minimal effects hide nothing. Where they are, and their exit codes."""
    out = tmp_path_factory.mktemp("twenty")
    return out, [night(out, f"2026-01-{seed:02d}", f"seed={seed}", *NO_EFFECT)[0] for seed in range(1, 21)]


def test_of_twenty_nights_that_differ_in_the_sampling_seed_at_most_one_alarms(twenty: tuple[Path, list[int]]) -> None:
    assert sum(twenty[1]) <= 1


def test_of_all_pairs_of_them_at_most_one_in_twenty_alarms(twenty: tuple[Path, list[int]]) -> None:
    """The rate itself: at half of what is allowed, two alarms come in one row of twenty nights out of twelve."""
    alarms, pairs = alarms_of_pairs(twenty[0])
    assert pairs == 20 * 19
    assert alarms <= pairs / 20


def alarms_of_pairs(out: Path) -> tuple[int, int]:
    """In how many of all pairs of finished nights the later one would alarm, and how many there are: each night is
    compared with each other one as if that had been the last good night."""
    history = History(Store(out))
    nights = {kept["date"]: {**kept, "status": "good"} for kept in history.nights()}
    scores = {date: history.scores(kept) for date, kept in nights.items()}
    config = load("nightly_tiny", [*LITTLE, *NO_EFFECT]).nightly
    verdicts = [
        compare(config, nights[now]["methods"], scores[now], [nights[before]], lambda kept: scores[kept["date"]])
        for before, now in permutations(nights, 2)
    ]
    assert all(verdict.findings for verdict in verdicts)
    return sum(verdict.status == "regressed" for verdict in verdicts), len(verdicts)


def test_a_method_is_pre_trained_on_its_own_people_once(tmp_path: Path) -> None:
    method = (
        "nightly.methods={hyperdreambooth: {recipe: hyperdreambooth_tiny, changes: {train.steps: 2, "
        "source.identities: 4, stages.lidb.tune.steps: 2, method.personalize.steps: 2}}}",
        "nightly.pins={}",
    )
    first = night(tmp_path, "2026-01-01", "seed=1", *method)[1]
    (trained,) = (tmp_path / "pretrained").iterdir()
    before = everything(trained)
    second = night(tmp_path, "2026-01-02", "seed=2", *method)[1]
    assert everything(trained) == before
    weights = [done["methods"]["hyperdreambooth"]["fingerprint"] for done in (first, second)]
    assert weights[0] == weights[1]
    assert second["methods"]["hyperdreambooth"]["compared_with"] == "2026-01-01"
