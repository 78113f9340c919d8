"""Every command line in ``infra/`` is one that the product has: its flags parse and its recipe resolves."""

from __future__ import annotations

import argparse
import shlex

import pytest

from jobs.__main__ import commands, parser
from jobs._job import Job
from tests.support import infra

WORDS = {
    **{f"RayJob {name}": words for name, words in infra.rayjob_words().items()},
    **{f"CronJob {name}": words for name, words in infra.schedule_words().items()},
    **infra.told_words(),
}
SHELL = set("$`\"'\\|&;<>(){}*?#~!")
"""What a shell reads as something else than itself."""


def parsed(words: list[str]) -> argparse.Namespace:
    assert words[0] in commands(), f"no command is called {words[0]}"
    return parser(words[0]).parse_args(words[1:])


def test_the_road_and_the_night_are_there() -> None:
    road = {"doctor", "preprocess", "targets", "pretrain", "personalize", "generate", "evaluate", "report", "nightly"}
    assert {words[0] for words in infra.rayjob_words().values()} == road
    assert {words[0] for words in infra.schedule_words().values()} == {"nightly", "preprocess"}
    assert len(infra.told_words()) >= 2, "the command lines of comments were not found"


@pytest.mark.parametrize("where", WORDS)
def test_it_parses_and_its_recipe_resolves(where: str) -> None:
    args = parsed(WORDS[where])
    recipe = Job(args).recipe
    recipe.build_source()
    recipe.build_stages()
    assert args.out or where in infra.told_words(), "a job on a cluster says where its results go"


@pytest.mark.parametrize("name", infra.rayjob_words())
def test_a_rayjob_needs_no_quotes(name: str) -> None:
    """KubeRay pastes the entrypoint into a shell of its own, whose variables are not the job's."""
    words = infra.rayjob_words()[name]
    assert not SHELL & set(" ".join(words)), f"{shlex.join(words)} would not reach Ray as it stands"


@pytest.mark.parametrize("name", infra.schedule_words())
def test_a_schedule_says_the_words_of_a_rayjob(name: str) -> None:
    scheduled = vars(parsed(infra.schedule_words()[name]))
    assert scheduled in [vars(parsed(words)) for words in infra.rayjob_words().values() if words[0] in commands()]


def test_what_one_job_reads_another_writes() -> None:
    jobs = [parsed(words) for words in infra.rayjob_words().values() if words[0] in commands()]
    written = {args.out for args in jobs}
    for args in jobs:
        read = [getattr(args, flag, None) for flag in ("shards", "checkpoint", "adapters", "images", "evaluation")]
        for uri in [u for value in read if value for u in (value if isinstance(value, list) else [value])]:
            assert uri in written, f"nothing writes {uri}"
