"""`nightly`: a night a date, compared with the last good one; red when something dropped, and nothing hides it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from e4t_core.errors import DataError, UsageError
from e4t_core.storage import Store
from jobs import __main__ as jobs_main
from jobs._nightly import pins, webhook
from jobs._nightly.entrants import entrants
from jobs._nightly.history import History
from jobs._recipe import load
from jobs._variants import assignments
from tests.jobs import people
from tests.jobs.conftest import everything
from tests.jobs.nights import SETS, Commands, Hook, commands, hook, night

__all__ = ["commands", "hook"]
BROKEN = {"e4t": {"identity": 0.3, "identity_heldout": 0.3}}


def code(out: Path, date: str, *more: str, sets: tuple[str, ...] = ()) -> int:
    """The exit code of a night."""
    over = [word for text in (*SETS, *sets) for word in ("--set", text)]
    return jobs_main.main(["nightly", "--recipe", "nightly_tiny", *over, "--out", str(out), "--date", date, *more])


# --- a night


def test_every_method_goes_through_the_ordinary_commands(tmp_path: Path, commands: Commands) -> None:
    done = night(tmp_path, "2026-01-01", sets=("seed=7", "generate.sampler.steps=3"))
    each = ["personalize", "generate", "evaluate"]
    assert [c.command for c in commands.ran] == ["preprocess", *each, *each, "report"]
    recipes = [load(c.recipe, c.set) for c in commands.ran[1:7]]
    assert {(r.seed, r.generate.sampler.steps, r.source.split) for r in recipes} == {(7, 3, "test")}  # type: ignore[attr-defined]
    assert {r.name for r in recipes} == {"nightly_tiny", "nightly_tiny_gentle"}
    assert all(r.nightly is None for r in recipes)
    personalize, generate, evaluate = commands.ran[1:4]
    assert personalize.checkpoint == generate.checkpoint == "bundled:e4t_face"
    assert personalize.shards == evaluate.shards == commands.ran[0].out
    assert (generate.adapters, evaluate.images) == (personalize.out, generate.out)
    assert commands.ran[-1].evaluation == [commands.ran[3].out, commands.ran[6].out]
    assert (done["status"], done["exit_code"]) == ("first", 0)
    assert "no good night has it yet" in done["methods"]["e4t"]["not_compared"]


def test_a_finished_night_tells_its_verdict_and_runs_nothing(tmp_path: Path, commands: Commands) -> None:
    first = night(tmp_path, "2026-01-01")
    ran, before = len(commands.ran), everything(tmp_path)
    assert night(tmp_path, "2026-01-01") == first
    assert (len(commands.ran), everything(tmp_path)) == (ran, before)


def test_a_killed_night_goes_on(tmp_path: Path, commands: Commands) -> None:
    commands.die = "evaluate"
    with pytest.raises(KeyboardInterrupt):
        night(tmp_path, "2026-01-01")
    assert History(Store(tmp_path)).read("2026-01-01") is None
    places = [c.out for c in commands.ran]
    commands.die, commands.ran = None, []
    assert night(tmp_path, "2026-01-01")["status"] == "first"
    assert [c.out for c in commands.ran][: len(places)] == places


def test_nights_that_differ_in_the_sampling_seed_are_compared(tmp_path: Path, commands: Commands) -> None:
    night(tmp_path, "2026-01-01", sets=("seed=1",))
    done = night(tmp_path, "2026-01-02", sets=("seed=2",))
    assert (done["status"], done["methods"]["e4t"]["compared_with"]) == ("good", "2026-01-01")
    assert len({c.out for c in commands.ran if c.command == "preprocess"}) == 1


def test_a_broken_method_turns_the_light_red(
    tmp_path: Path, commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code(tmp_path, "2026-01-01", sets=("seed=1",)) == 0
    commands.drop = BROKEN
    broken = ("seed=2", "nightly.methods.e4t.changes={method.personalize.tune: none}")
    assert code(tmp_path, "2026-01-02", "--json", sets=broken) == 1
    out, err = capsys.readouterr()
    summary = json.loads(out.splitlines()[-1])
    assert {(f["method"], f["metric"], f["verdict"]) for f in summary["moved"]} == {
        ("e4t", "identity", "drop"),
        ("e4t", "identity_heldout", "drop"),
    }
    (line,) = [row for row in err.splitlines() if row.startswith("e4t ") and "held out" in row]
    assert line.endswith("drop")
    assert "since 2026-01-01, method.personalize.tune is 'all' there and 'none' here" in err
    assert code(tmp_path, "2026-01-02", sets=broken) == 1  # told again, still red
    page = (tmp_path / "nightly.html").read_text()
    assert "Regressed" in page
    assert 'class="drop"' in page
    assert 'href="nights/2026-01-02/report/report.html"' in page


def test_a_red_night_is_no_yardstick_until_it_is_accepted(tmp_path: Path, commands: Commands) -> None:
    night(tmp_path, "2026-01-01", sets=("seed=1",))
    commands.drop = BROKEN
    assert night(tmp_path, "2026-01-02", sets=("seed=2",))["exit_code"] == 1
    again = night(tmp_path, "2026-01-03", sets=("seed=3",))
    assert (again["exit_code"], again["methods"]["e4t"]["compared_with"]) == (1, "2026-01-01")
    done = night(tmp_path, "2026-01-03", "--accept", "half the steps", sets=("seed=3",))
    assert (done["exit_code"], done["status"]) == (0, "accepted")
    after = night(tmp_path, "2026-01-04", sets=("seed=4",))
    assert (after["exit_code"], after["methods"]["e4t"]["compared_with"]) == (0, "2026-01-03")
    with pytest.raises(UsageError, match="no finished night 2026-01-09"):
        night(tmp_path, "2026-01-09", "--accept", "why not")
    with pytest.raises(UsageError, match="accepted already: half the steps"):
        night(tmp_path, "2026-01-03", "--accept", "another reason", sets=("seed=3",))


def test_faces_that_are_lost_and_people_that_fail_are_drops(tmp_path: Path, commands: Commands) -> None:
    night(tmp_path, "2026-01-01", sets=("seed=1",))
    commands.lost = {"gentle": 1.0}
    lost = night(tmp_path, "2026-01-02", sets=("seed=2",))
    assert {(f["method"], f["metric"]) for f in lost["moved"] if f["verdict"] == "drop"} == {
        ("gentle", "identity.scored"),
        ("gentle", "identity_heldout.scored"),
    }
    commands.lost, commands.failed = {}, {f"person_{i}": "ValueError: no face" for i in range(7)}
    failed = night(tmp_path, "2026-01-03", sets=("seed=3", "nightly.effect=0.0"))
    assert {f["metric"] for f in failed["moved"] if f["verdict"] == "drop"} == {
        f"{name}.scored" for name in ("clip_t", "clip_i", "identity", "identity_heldout")
    }
    assert {f["verdict"] for f in failed["moved"] if f["metric"] == "identity"} == {"unknown"}


def test_another_benchmark_is_not_compared_and_says_so(tmp_path: Path, commands: Commands) -> None:
    night(tmp_path, "2026-01-01")
    commands.drop = BROKEN
    prompt = "generate.prompts=[{name: photo, template: 'a photo of {}', concept_less: a photo}]"
    done = night(tmp_path, "2026-01-02", sets=(prompt,))
    assert (done["status"], done["moved"]) == ("first", [])
    assert "no good night measured the same; that of 2026-01-01 is another: prompts is" in str(
        done["methods"]["e4t"]["not_compared"]
    )
    back = night(tmp_path, "2026-01-03")
    assert (back["exit_code"], back["methods"]["e4t"]["compared_with"]) == (1, "2026-01-01")
    page = (tmp_path / "nightly.html").read_text()
    assert page.count("<polyline") == 2 * 4 * 3  # methods, scores, stretches of nights that measured the same
    assert page.count('<circle class="drop"') == 2


def test_a_new_method_joins_and_the_others_stay_compared(tmp_path: Path, commands: Commands) -> None:
    night(tmp_path, "2026-01-01", "--only", "e4t", sets=("seed=1",))
    done = night(tmp_path, "2026-01-02", sets=("seed=2",))
    assert done["status"] == "good"
    assert [m["compared_with"] for m in done["methods"].values()] == ["2026-01-01", None]


def test_a_pin_of_a_method_that_is_left_out_stands(tmp_path: Path, commands: Commands) -> None:
    only = ("nightly.methods={e4t: {checkpoint: 'bundled:e4t_face'}, lora: {recipe: lora_tiny}}",)
    assert list(night(tmp_path, "2026-01-01", "--only", "lora", sets=only)["methods"]) == ["lora"]
    with pytest.raises(UsageError, match=r"nightly.pins.methods.lora: there is no such thing"):
        night(tmp_path, "2026-01-02", sets=(*only, "nightly.pins={methods.lora: x}"))


def test_old_nights_lose_their_pictures_and_nothing_else(tmp_path: Path, commands: Commands) -> None:
    for day in (1, 2, 3):
        for what in ("adapters", "images", "evaluation"):
            Store(tmp_path).put(f"nights/2026-01-0{day}/e4t/{what}/x", b"x")
        night(tmp_path, f"2026-01-0{day}", sets=(f"seed={day}",))
    there = {str(path.relative_to(tmp_path / "nights")) for path in (tmp_path / "nights").rglob("x")}
    kept = {f"2026-01-0{day}/e4t/{what}/x" for day in (2, 3) for what in ("adapters", "images", "evaluation")}
    assert there == kept | {"2026-01-01/e4t/evaluation/x"}


def test_the_history_is_kept_in_a_bucket_too(moto_s3: Callable[[], str], commands: Commands) -> None:
    out = moto_s3()
    night(out, "2026-01-01", sets=("seed=1",))
    commands.drop = BROKEN
    assert night(out, "2026-01-02", sets=("seed=2",))["exit_code"] == 1
    assert night(out, "2026-01-02", sets=("seed=2",))["exit_code"] == 1
    nights = History(Store(out)).nights()
    assert [(n["date"], n["status"]) for n in nights] == [("2026-01-01", "first"), ("2026-01-02", "regressed")]
    assert b"Regressed" in Store(out).read("nightly.html")


def test_of_two_that_finish_one_night_the_first_stands(tmp_path: Path, commands: Commands) -> None:
    night(tmp_path, "2026-01-01")
    history = History(Store(tmp_path))
    there = history.read("2026-01-01")
    assert there is not None
    assert history.commit({**there, "status": "regressed"}, {}) == there


# --- as long as another

SAME_TIME = (
    "nightly.methods={lora: {recipe: lora_tiny, as_long_as: e4t, changes: {method.personalize.steps: 1000}}, "
    "e4t: {checkpoint: 'bundled:e4t_face'}}",
)


def test_a_method_learns_as_long_as_another_took_the_same_night(tmp_path: Path, commands: Commands) -> None:
    commands.took = {"e4t": 16.5512, "lora": 16.7}
    night(tmp_path, "2026-01-01", sets=SAME_TIME)
    ran = {(c.out.split("/")[-2], c.command): load(c.recipe, c.set) for c in commands.ran if "nights" in c.out}
    each = ["personalize", "generate", "evaluate"]
    assert list(ran)[:6] == [*(("e4t", c) for c in each), *(("lora", c) for c in each)]  # its time is measured first
    tuned = [ran["lora", command].dump()["method"]["personalize"] for command in each]
    assert [(t["seconds"], t["steps"]) for t in tuned] == [(16.55, 1000)] * 3
    assert "seconds" not in ran["e4t", "personalize"].dump()["method"]["personalize"]
    assert [url.split("/")[-2] for url in commands.ran[-1].evaluation] == ["lora", "e4t"]  # the recipe's order


def test_a_budget_that_is_measured_anew_is_no_change_of_settings(tmp_path: Path, commands: Commands) -> None:
    for date, seconds in (("2026-01-01", 16.6), ("2026-01-02", 16.4)):
        commands.took = {"e4t": seconds, "lora": seconds}
        done = night(tmp_path, date, sets=SAME_TIME)["methods"]["lora"]
    assert (done["compared_with"], done["changes"]) == ("2026-01-01", [])
    fixed = SAME_TIME[0].replace("as_long_as: e4t, ", "")
    done = night(tmp_path, "2026-01-03", sets=(fixed,))["methods"]["lora"]
    assert any("as_long_as" in line for line in done["changes"])


def test_the_plan_says_whose_time_it_is(tmp_path: Path, commands: Commands, capsys: pytest.CaptureFixture[str]) -> None:
    night(tmp_path, "2026-01-01", "--dry-run", sets=SAME_TIME)
    lines = {line.split()[0]: line.split(maxsplit=1)[1] for line in capsys.readouterr().err.splitlines()}
    assert lines["lora"] == "needs no pre-training, learns as long as e4t"
    assert lines["e4t"] == "bundled:e4t_face"


def test_whose_time_a_method_has_is_part_of_the_night(tmp_path: Path, commands: Commands) -> None:
    commands.took = {"e4t": 16.6}
    night(tmp_path, "2026-01-01", sets=SAME_TIME)
    with pytest.raises(UsageError, match=r"one of another recipe: .*as_long_as"):
        night(tmp_path, "2026-01-01", sets=(SAME_TIME[0].replace("as_long_as: e4t, ", ""),))


def test_a_time_that_nobody_takes_is_refused_at_once(tmp_path: Path, commands: Commands) -> None:
    def refused(change: tuple[str, str], match: str, *more: str) -> None:
        with pytest.raises(UsageError, match=match):
            night(tmp_path, "2026-01-01", *more, sets=(SAME_TIME[0].replace(*change),))

    refused(("as_long_as: e4t", "as_long_as: e4"), r"methods.lora.as_long_as: no method .* 'e4'; did you mean 'e4t'")
    refused(("as_long_as: e4t", "as_long_as: lora"), r"no method of the night that takes its own time is called 'lora'")
    refused(
        ("", ""), r"lora.as_long_as is e4t, whose time is measured in the same night: --only e4t,lora", "--only", "lora"
    )
    timed = "{lora: {recipe: lora_tiny}, e4t: {checkpoint: 'bundled:e4t_face', as_long_as: lora}}"
    refused(
        (SAME_TIME[0], f"nightly.methods={timed}"), r"e4t.as_long_as: method 'e4t' takes no time limit: .*'seconds'"
    )
    assert not commands.ran


def test_a_time_that_was_not_measured_is_told(tmp_path: Path, commands: Commands) -> None:
    with pytest.raises(DataError, match=r"e4t/evaluation has no time in which e4t learned one identity"):
        night(tmp_path, "2026-01-01", sets=SAME_TIME)


# --- what it refuses


def test_a_date_is_one_recipes(tmp_path: Path, commands: Commands) -> None:
    night(tmp_path, "2026-01-01")
    ran = len(commands.ran)
    for more in (("seed=5",), ("nightly.alpha=0.01",), ("method.personalize.steps=3",)):
        with pytest.raises(UsageError, match=r"the night 2026-01-01 .* is one of another recipe: "):
            night(tmp_path, "2026-01-01", sets=more)
    night(tmp_path, "2026-01-01", sets=("personalize.actors=4", "ray.num_cpus=1"))  # elsewhere is not another
    assert len(commands.ran) == ran


def test_pins_hold_weights_and_data(tmp_path: Path, commands: Commands) -> None:
    for name, value in (("methods.e4t", "0" * 16), ("backbone", "1" * 16)):
        with pytest.raises(DataError, match=rf"nightly.pins.{name} is '{value}' and '\w+' is there"):
            night(tmp_path / "a", "2026-01-01", sets=(f"nightly.pins={{{name}: '{value}'}}",))
    assert not commands.ran
    with pytest.raises(UsageError, match=r"nightly.pins.bakbone: there is no such thing.*did you mean 'backbone'"):
        night(tmp_path / "a", "2026-01-01", sets=("nightly.pins={bakbone: x}",))
    with pytest.raises(DataError, match=r"nightly.pins.data is 'x'"):
        night(tmp_path / "b", "2026-01-01", sets=("nightly.pins={data: x}",))
    assert [c.command for c in commands.ran] == ["preprocess"]


def test_damaged_people_are_found_before_anything_is_learned(tmp_path: Path, commands: Commands) -> None:
    night(tmp_path, "2026-01-01")
    tar = next((tmp_path / "people").rglob("data/ingest/*"))
    data = bytearray(tar.read_bytes())
    data[len(data) // 2] ^= 1
    tar.write_bytes(data)
    with pytest.raises(DataError, match="1 problems in"):
        pins.people(str(next((tmp_path / "people").iterdir())))


def test_too_few_people_are_refused_before_hours_are_spent(tmp_path: Path, commands: Commands) -> None:
    with pytest.raises(UsageError, match=r"5 identities can show no drop at nightly\.alpha = 0\.05.* takes 6 or more"):
        night(tmp_path, "2026-01-01", sets=("personalize.max_identities=5",))
    assert [c.command for c in commands.ran] == ["preprocess"]


def test_wrong_words_are_told(tmp_path: Path, commands: Commands) -> None:
    with pytest.raises(UsageError, match=r"--date 1\.1\.2026"):
        night(tmp_path, "1.1.2026")
    with pytest.raises(UsageError, match="no method is called 'e4'; did you mean 'e4t'"):
        night(tmp_path, "2026-01-01", "--only", "e4")
    with pytest.raises(UsageError, match="recipe 'tiny' has no section 'nightly'; use --recipe nightly_tiny"):
        jobs_main.start("nightly", ["--recipe", "tiny", "--out", str(tmp_path)])
    with pytest.raises(UsageError, match=r"nightly.methods.e4t has neither a checkpoint nor a recipe"):
        night(tmp_path, "2026-01-01", sets=("nightly.methods={e4t: {}}",))
    with pytest.raises(UsageError, match="is no address to post to"):
        night(tmp_path, "2026-01-01", sets=("nightly.webhook='hooks.example/secret'",))
    assert not list(tmp_path.iterdir())


def test_dry_run_shows_what_to_pin_and_does_nothing(tmp_path: Path, commands: Commands) -> None:
    plan = night(tmp_path / "new", "2026-01-01", "--dry-run")
    assert plan["methods"] == {"e4t": "bundled:e4t_face", "gentle": "bundled:e4t_face"}
    assert set(plan["fingerprints"]) >= {"backbone", "clip", "metrics.identity", "methods.e4t", "methods.gentle"}
    assert not commands.ran
    assert not (tmp_path / "new").exists()


# --- who is told


def test_the_webhook_gets_the_summary_once(tmp_path: Path, commands: Commands, hook: Hook) -> None:
    told = (f"nightly.webhook={hook.url}",)
    night(tmp_path, "2026-01-01", sets=("seed=1",))
    commands.drop = BROKEN
    done = night(tmp_path, "2026-01-02", sets=("seed=2", *told))
    night(tmp_path, "2026-01-02", sets=("seed=2", *told))
    (posted,) = hook.posted
    assert done["webhook"] == {"posted": True, "error": None}
    assert posted["exit_code"] == 1
    assert posted["moved"] == done["moved"]
    text = posted["text"].splitlines()
    assert text[0].endswith("*nightly_tiny* 2026-01-02: 2 of 16 scores dropped: e4t")
    assert any(line.startswith("e4t") and line.endswith("drop") for line in text)
    assert "secret" not in "".join(path.read_text() for path in tmp_path.rglob("*.json"))
    assert "secret" not in (tmp_path / "nightly.html").read_text()


def test_a_webhook_that_is_away_hides_nothing_and_is_tried_again(
    tmp_path: Path, commands: Commands, hook: Hook, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NIGHTLY_WEBHOOK", hook.url)
    hook.refuse = [503, 500]
    assert night(tmp_path, "2026-01-01", sets=("seed=1",))["webhook"]["posted"]  # at the third try
    commands.drop, hook.refuse = BROKEN, [503, 503, 503]
    assert code(tmp_path, "2026-01-02", sets=("seed=2",)) == 1
    err = capsys.readouterr().err
    assert "did not take the summary: HTTP 503" in err
    assert "regressed: 2 of 16 scores dropped" in err
    assert "secret" not in err
    assert code(tmp_path, "2026-01-02", sets=("seed=2",)) == 1
    assert [p["date"] for p in hook.posted] == ["2026-01-01", "2026-01-02"]


def test_a_refusal_for_good_is_not_repeated_and_nobody_there_is_told(hook: Hook) -> None:
    hook.refuse = [404]
    with pytest.raises(webhook.WebhookError, match=r"http://127.0.0.1:\d+/\.\.\. did not take the summary: HTTP 404"):
        webhook.post(hook.url, {"text": "hello"}, pauses=(0.0, 0.0))
    assert hook.asked == 1
    hook.close()
    with pytest.raises(webhook.WebhookError, match="refused"):
        webhook.post(hook.url, {"text": "hello"}, pauses=(0.0,))


def test_a_night_that_does_not_finish_is_told(
    tmp_path: Path, commands: Commands, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Commands, *args: Any) -> None:
        raise DataError("the disk is full")

    monkeypatch.setattr(Commands, "evaluate", fail)
    with pytest.raises(DataError, match="the disk is full"):
        night(tmp_path, "2026-01-01", sets=(f"nightly.webhook={hook.url}",))
    assert [p["status"] for p in hook.posted] == ["failed"]
    assert hook.posted[0]["text"].endswith("*nightly_tiny* 2026-01-01 did not finish: DataError: the disk is full")


# --- the shipped recipes


@pytest.mark.parametrize(
    ("which", "sets"),
    [
        ("nightly_tiny", ()),
        ("nightly_tiny", ("personalize.actors=3", "personalize.threads=1", "personalize.held_out=1")),
        ("nightly_lfw", ("source.path=/data/lfw", "backbone.path=/models/sd15", "nightly.webhook=https://h/secret")),
        ("benchmark_tiny", ()),
        ("benchmark_lfw", ("source.path=/data/lfw",)),
    ],
)
def test_all_methods_of_a_night_share_its_benchmark(which: str, sets: tuple[str, ...]) -> None:
    recipe = load(which, sets)
    config = recipe.nightly
    assert config is not None
    whole = load(which, [*assignments(config.people), *sets])
    for entrant in entrants(which, sets, config, tuple(config.methods), {}):
        ours = entrant.recipe
        for section in ("source", "generate", "metrics", "evaluate", "seed"):
            assert getattr(ours, section) == getattr(whole, section), section
        assert ours.stages["ingest"] == whole.stages["ingest"]
        for field in ("max_identities", "held_out", "actors", "threads", "gpus"):
            assert getattr(ours.personalize, field) == getattr(whole.personalize, field), field
        assert ours.backbone.path == entrant.training.backbone.path == whole.backbone.path
        if entrant.learns:
            assert entrant.training.source != whole.source
            assert entrant.training.seed == load(entrant.which).seed
        assert "secret" not in json.dumps(ours.dump())


BASELINES = ("textual_inversion", "dreambooth", "lora")


@pytest.mark.parametrize("which", ["benchmark_tiny", "benchmark_lfw"])
def test_a_benchmark_has_all_methods_and_all_ways_of_the_baselines(which: str) -> None:
    config = load(which).nightly
    assert config is not None
    found = {e.name: e for e in entrants(which, (), config, tuple(config.methods), {})}
    assert {e.recipe.method.name for e in found.values()} == {
        "e4t", "domain_agnostic", "taming_encoder", "hyperdreambooth", *BASELINES,
    }  # fmt: skip
    for name in BASELINES:
        whole, timed = found[f"{name}_all"].recipe, found[f"{name}_same_time"]
        assert (found[name].recipe.personalize.images, whole.personalize.images) == (1, "all")
        assert timed.as_long_as == "e4t"
        steps = [e.recipe.dump()["method"]["personalize"]["steps"] for e in (found[name], timed)]
        assert steps[1] > 10 * steps[0]  # time ends it


def test_the_seed_of_a_night_moves_neither_people_nor_pre_trainings() -> None:
    places = []
    for seed in (1, 2):
        sets = (f"seed={seed}",)
        config = load("nightly_tiny", sets).nightly
        assert config is not None
        found = entrants("nightly_tiny", sets, config, tuple(config.methods), {})
        places.append([(e.people, e.checkpoint, e.shards) for e in found if e.learns])
        assert {e.recipe.seed for e in found} == {seed}
    assert places[0] == places[1]


def test_the_section_enters_no_hash_and_the_webhook_no_dump() -> None:
    plain, told = load("nightly_tiny", ["nightly=null"]), load("nightly_tiny", ["nightly.webhook=https://h/secret"])
    assert plain.hash == told.hash
    assert "secret" not in json.dumps(told.dump())
    assert "nightly" not in plain.dump()


def test_what_ships_is_what_nightly_tiny_pins() -> None:
    recipe = load("nightly_tiny")
    assert recipe.nightly is not None
    found = pins.weights(recipe, entrants("nightly_tiny", (), recipe.nightly, ("e4t",), {}))
    assert found.items() >= recipe.nightly.pins.items()


# --- with real evaluations


def test_real_evaluations_are_compared_and_the_wrong_faces_caught(
    tmp_path: Path, commands: Commands, monkeypatch: pytest.MonkeyPatch, tracking: str
) -> None:
    """Pictures are filtered photos, so that nothing has to be sampled; the second night's are of somebody else."""
    people.without_ray(monkeypatch)
    photos = people.family(8, 2)
    drawn = {"2026-01-01": photos, "2026-01-02": {who: [people.face(900 + i)] for i, who in enumerate(photos)}}

    def start(command: str, words: list[str]) -> dict[str, Any]:
        args = jobs_main.parser(command).parse_args(words)
        if command == "generate":
            date = args.out.split("/")[-3]
            people.images(args.out, drawn[date])
        return jobs_main.start(command, words) if command in ("evaluate", "report") else commands(command, words)

    monkeypatch.setattr("jobs.nightly.start", start)
    sets = ("nightly.methods={e4t: {checkpoint: 'bundled:e4t_face'}}", f"mlflow.uri={tracking}")
    assert night(tmp_path, "2026-01-01", sets=sets)["status"] == "first"
    done = night(tmp_path, "2026-01-02", sets=sets)
    assert done["exit_code"] == 1
    assert {("clip_i", "drop")} <= {(f["metric"], f["verdict"]) for f in done["moved"]}
    assert "Personalization report" in Path(done["report"]).read_text()
