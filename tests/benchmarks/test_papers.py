"""The papers' tables: a claim is judged by the interval of its difference, and every place it names is made."""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jobs._nightly.entrants import entrants
from jobs._recipe import load
from jobs._variants import assignments
from tests.benchmarks.papers.__main__ import COMMAND, KEPT, PAGE
from tests.benchmarks.papers.claims import (
    CLAIMS,
    CONTRADICTED,
    MISSING,
    OPEN,
    REPRODUCED,
    UNTESTABLE,
    Claim,
    difference,
    judge,
)
from tests.benchmarks.papers.page import page, plots
from tests.benchmarks.papers.sections import SECTIONS
from tests.benchmarks.papers.studies import DATE, STUDIES, Results, keep_all
from tests.jobs import evaluations


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Three methods of the benchmark, one well ahead in likeness, none in anything else."""
    out = tmp_path_factory.mktemp("papers")
    means = {"e4t": 0.7, "dreambooth": 0.4, "textual_inversion": 0.7}
    made = evaluations.write(out / "made", evaluations.names(20), means, side=16)
    for name, folder in zip(means, made, strict=True):
        place = out / "benchmark" / "nights" / DATE / name
        place.mkdir(parents=True)
        (place / "evaluation").symlink_to(folder)
    keep_all(out, out / "kept")
    return Results(out / "kept")


@pytest.mark.parametrize(
    ("more", "less", "score", "word"),
    [
        ("e4t", "dreambooth", "identity", REPRODUCED),
        ("dreambooth", "e4t", "identity", CONTRADICTED),
        ("e4t", "dreambooth", "clip_t", OPEN),
        ("e4t", "lora", "identity", MISSING),
        ("e4t", "dreambooth", "steps", CONTRADICTED),
    ],
)
def test_a_claim_is_judged_by_its_difference(results: Results, more: str, less: str, score: str, word: str) -> None:
    verdict = judge(Claim("", f"benchmark/{more}", f"benchmark/{less}", score), results)
    assert verdict.word == word, verdict
    if word in (REPRODUCED, CONTRADICTED, OPEN) and score != "steps":
        assert verdict.why.endswith("20 identities")


def test_a_claim_can_be_about_some_of_the_identities(results: Results) -> None:
    some, count = Counter(name[0] for name in evaluations.names(20)).most_common(1)[0]
    verdict = judge(Claim("", "benchmark/e4t", "benchmark/dreambooth", "identity", of=some), results)
    assert 1 < count < 20
    assert verdict.word == REPRODUCED
    assert verdict.why.endswith(f"{count} identities")


def test_a_score_that_was_not_made_is_named(results: Results) -> None:
    verdict = judge(Claim("", "benchmark/e4t", "benchmark/dreambooth", "diversity"), results)
    assert (verdict.word, verdict.why) == (MISSING, "diversity of benchmark/e4t")


def test_the_page_has_ours_and_theirs_and_every_claim(results: Results) -> None:
    text = page(results, "the command")
    figures = results.found["benchmark"]["e4t"].figures["scores"]["identity"]
    told = f"{figures['mean']:.3f} [{figures['low']:.3f}, {figures['high']:.3f}]"
    assert f"| E4T | {told}" in text
    assert "| *HyperDreamBooth (paper)* | 0.655 | 0.577 | 0.286 |" in text
    assert "| 20 identities | ID | CLIP-I | CLIP-T |" in text
    for claim in (claim for claims in CLAIMS.values() for claim in claims):
        assert f"- {claim.text}: **" in text
    assert f"DINO tells the same: **{UNTESTABLE}**" in text
    total = sum(map(len, CLAIMS.values()))
    tally = next(line for line in text.splitlines() if line.startswith(f"Of {total} claims: "))
    assert sum(int(part.split()[0]) for part in tally.split(": ")[1].split(", ")) == total
    assert f"{text.count(f': **{REPRODUCED}**')} {REPRODUCED}" in tally


def test_variants_are_told_from_the_whole_method_by_identity(results: Results, tmp_path: Path) -> None:
    (tmp_path / "e4t").mkdir()
    for variant, method in (("full", "e4t"), ("no_tuning", "dreambooth"), ("no_offsets", "textual_inversion")):
        kept = results.folder / "benchmark" / f"{method}.parquet"
        (tmp_path / "e4t" / f"{variant}.parquet").write_bytes(kept.read_bytes())
    text = page(Results(tmp_path), "the command")
    (table,) = re.findall(r"Each less `full`.*:\n\n((?:\|.*\n)+)", text)  # one section alone has anything to compare
    head, _, *rows = table.splitlines()
    assert head == "| | ID | CLIP-T | CLIP-I |"
    cells = {row.split(" | ")[0].removeprefix("| "): row.split(" | ")[1] for row in rows}
    assert list(cells) == ["no tuning", "no offsets"]
    verdict = judge(Claim("", "e4t/no_tuning", "e4t/full", "identity"), Results(tmp_path))
    assert verdict.word == CONTRADICTED
    assert cells["no tuning"] == f"**{verdict.why.removesuffix(', 20 identities')}**"
    assert not cells["no offsets"].startswith("**")


def test_pictures_stand_where_there_are_points_to_compare(results: Results) -> None:
    text = page(results, "the command")
    ((file, entries),) = plots(results).values()
    assert [entry.label for entry in entries] == ["e4t", "textual_inversion", "dreambooth"]  # the table's rows
    assert text.count("![") == text.count(f"]({file})") == 1


def test_a_picture_has_the_points_of_its_table_alone(results: Results, tmp_path: Path) -> None:
    """Others of the study are of other people, or belong to another figure."""
    first = sorted((results.folder / "benchmark").iterdir())[0]
    for place in ("benchmark/e4t", "benchmark/lora", "benchmark/taming_encoder"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{place}.parquet").write_bytes(first.read_bytes())
    assert [entry.label for entry in plots(Results(tmp_path))["fig4a"][1]] == ["e4t", "lora"]


def test_figures_are_kept_without_pictures_and_places(results: Results) -> None:
    """What the repository holds says the same as the evaluation, is small, and names no machine's folders."""
    for name, entry in STUDIES[0].entries(results.folder.parent).items():
        kept, file = results.found["benchmark"][name], results.folder / "benchmark" / f"{name}.parquet"
        assert kept.figures == entry.figures
        for score in entry.scores:
            assert kept.means(score) == pytest.approx(entry.means(score), abs=1e-6)
        assert str(results.folder.parent).encode() not in file.read_bytes()
        assert file.stat().st_size < 40_000


def test_what_was_kept_before_stays(results: Results, tmp_path: Path) -> None:
    first = sorted((results.folder / "benchmark").iterdir())[0]
    (tmp_path / "kept" / "benchmark").mkdir(parents=True)
    (tmp_path / "kept" / "benchmark" / "lora.parquet").write_bytes(first.read_bytes())
    keep_all(results.folder.parent, tmp_path / "kept")
    both = Results(tmp_path / "kept")
    assert set(both.found["benchmark"]) == {"dreambooth", "e4t", "lora", "textual_inversion"}
    day = datetime.fromtimestamp(both.found["benchmark"]["lora"].result["created"], UTC).date()
    assert f"| `benchmark/lora` | {day} | {load('tiny', ['evaluate.bootstrap_samples=200']).hash} |" in page(both, "")


def test_the_page_in_the_repository_is_of_the_figures_beside_it() -> None:
    kept = Results(Path(__file__).parent / "results" / KEPT)
    assert any(kept.found.values())
    assert (kept.folder.parent / PAGE).read_text() == page(kept, COMMAND)
    assert all((kept.folder.parent / file).exists() for file, _ in plots(kept).values())


def test_what_figure_4a_says_of_equal_time_is_so() -> None:
    """Rows can be measured apart on other days: then 'the same night', and what follows from it, would be lies."""
    found = Results(Path(__file__).parent / "results" / KEPT).found["benchmark"]
    seconds = {name: entry.figures["costs"]["seconds_personalize"]["mean"] for name, entry in found.items()}
    for name in ("textual_inversion", "dreambooth", "lora"):
        assert seconds[f"{name}_same_time"] == pytest.approx(seconds["e4t"], rel=0.05), name  # a step more at most
    for score in ("identity", "clip_t"):
        assert difference(found["dreambooth_same_time"], found["dreambooth"], score, "").low > 0


def test_every_place_is_made_by_its_study() -> None:
    """No claim and no row waits for an evaluation that no command makes."""
    made = set()
    for study in STUDIES:
        words = list(study.command)
        recipe = load(words[words.index("--recipe") + 1], [words[i + 1] for i, w in enumerate(words) if w == "--set"])
        ablations = recipe.ablations
        named = recipe.nightly.methods if ablations is None else {**ablations.variants, **ablations.beside}  # type: ignore[union-attr]
        made |= {f"{study.name}/{name}" for name in named}
    asked = {place for section in SECTIONS for place in section.rows.values()}
    asked |= {place for claims in CLAIMS.values() for claim in claims for place in (claim.more, claim.less) if place}
    assert asked <= made, asked - made
    assert {section.claims for section in SECTIONS} == set(CLAIMS)


def test_the_ablations_have_fifty_people() -> None:
    for study in STUDIES[1:]:
        words = list(study.command)
        name, sets = words[words.index("--recipe") + 1], [words[i + 1] for i, w in enumerate(words) if w == "--set"]
        ablations = load(name, sets).ablations
        assert ablations is not None
        source = load(name, [*sets, *assignments(ablations.people), "ablations=null"]).source.dump()
        parts = list(source.get("parts", {"all": source}).values())
        assert {part["split"] for part in parts} == {"test"}
        assert sum(part["identities"] for part in parts) >= 50


def test_the_benchmark_has_fifty_people_and_holds_a_photo_out() -> None:
    recipe = load("benchmark_tiny")
    assert recipe.nightly is not None
    for entrant in entrants("benchmark_tiny", (), recipe.nightly, tuple(recipe.nightly.methods), {}):
        ours = entrant.recipe
        assert (ours.source.dump()["identities"], ours.personalize.max_identities, ours.personalize.held_out) == (
            50,
            50,
            1,
        )
        assert ours.personalize.images == ("all" if entrant.name.endswith("_all") else 1)
