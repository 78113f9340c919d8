"""Every night the same benchmark; a red light when something that matters got worse."""

from __future__ import annotations

import argparse
import datetime
from typing import Any

from e4t_core.errors import UsageError
from jobs.__main__ import start
from jobs._job import Job, chosen
from jobs._nightly import webhook, words
from jobs._nightly.history import Night, good
from jobs._nightly.night import Runner
from jobs._nightly.page import render
from jobs._sections import NightlyConfig

HELP = "run the benchmark of all methods, compare it with the last good night, exit 1 with a table if something dropped"
RECIPE = "nightly_tiny"
PAGE = "nightly.html"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of this job."""
    parser.add_argument("--date", metavar="YYYY-MM-DD", help="which night it is (default: today, UTC)")
    parser.add_argument("--only", metavar="A,B", help="these of nightly.methods")
    parser.add_argument(
        "--accept", metavar="WHY", help="take a finished night's drops for good: later ones compare to it"
    )


def run(job: Job) -> dict[str, Any]:
    """Run the date's night, or go on with it; a finished one tells its verdict again and runs nothing."""
    config = _section(job)
    names = chosen(job.args.only, tuple(config.methods), "method")
    runner = Runner(job, _date(job.args.date), config, names, start)
    url = webhook.address(config.webhook)
    if job.dry_run:
        return _plan(job, runner)
    night = runner.history.read(runner.date)
    if night is not None:
        runner.history.begin(runner.date, runner.asked(), {})  # it is this recipe's night, or that is told
    if job.args.accept:
        night = runner.history.accept(runner.date, job.args.accept)
    return _finish(job, runner, night or _run(job, runner, url), url)


def _section(job: Job) -> NightlyConfig:
    found = job.recipe.nightly
    if found is None:
        raise UsageError(f"recipe '{job.recipe.name}' has no section 'nightly'; use --recipe {RECIPE} or extend it")
    return found


def _date(text: str | None) -> str:
    if text is None:
        return datetime.datetime.now(datetime.UTC).date().isoformat()
    try:
        return datetime.datetime.strptime(text, "%Y-%m-%d").date().isoformat()
    except ValueError as error:
        raise UsageError(f"--date {text}: {error}; write it as YYYY-MM-DD") from error


def _plan(job: Job, runner: Runner) -> dict[str, Any]:
    plan = runner.plan()
    finished = runner.history.read(runner.date)
    state = "is finished" if finished else "was begun and goes on" if plan["begun"] else "is to be run"
    job.say(f"nightly: {runner.date} {state}: {', '.join(plan['methods'])} -> {job.out}")
    width = max(map(len, [*plan["methods"], *plan["fingerprints"]]))
    for name, checkpoint in plan["methods"].items():
        other = runner.config.methods[name].as_long_as
        limit = f", learns as long as {other}" if other else ""
        job.say(f"{name:<{width}} {checkpoint or 'needs no pre-training'}{limit}")
    for name, value in plan["fingerprints"].items():
        job.say(f"{name:<{width}} {value}{' (pinned)' if name in runner.config.pins else ''}")
    return {"dry_run": True, "out": job.out, "date": runner.date, **plan}


def _run(job: Job, runner: Runner, url: str | None) -> Night:
    """A night that does not finish is told too: silence must not look like a good one."""
    try:
        return runner.run()
    except Exception as error:
        text = words.failure(job.recipe.name, runner.date, error)
        _post(job, url, {"text": text, "date": runner.date, "recipe": job.recipe.name, "status": "failed"})
        raise


def _finish(job: Job, runner: Runner, night: Night, url: str | None) -> dict[str, Any]:
    """Tell the verdict everywhere it belongs, the terminal first; all of it may be done again."""
    for line in words.summary_lines(night):
        job.say(line)
    summary = _summary(job, night)
    told = _tell(job, runner, night, url, summary)
    page = render(runner.history.nights()).encode()
    if not job.store.exists(PAGE) or job.store.read(PAGE) != page:
        job.store.put(PAGE, page)
    for date in runner.history.tidy(runner.config.keep):
        job.say(f"nightly: adapters and pictures of {date} are deleted (nightly.keep = {runner.config.keep})")
    return {**summary, "webhook": told}


def _summary(job: Job, night: Night) -> dict[str, Any]:
    moved = [finding for finding in night["findings"] if finding["verdict"] != "same"]
    return {
        "out": job.out,
        "date": night["date"],
        "recipe": night["recipe"],
        "status": "accepted" if night["accepted"] else night["status"],
        "methods": {name: _brief(method) for name, method in night["methods"].items()},
        "moved": moved,
        "report": night["report"],
        "page": job.store.url(PAGE),
        "exit_code": 0 if good(night) else 1,
    }


def _brief(method: dict[str, Any]) -> dict[str, Any]:
    means = {name: score["mean"] for name, score in method["scores"].items()}
    return {
        "scores": means,
        **{key: method[key] for key in ("compared_with", "not_compared", "changes", "fingerprint")},
    }


def _tell(job: Job, runner: Runner, night: Night, url: str | None, summary: dict[str, Any]) -> dict[str, Any]:
    """Post the summary once a night; one that was not taken is posted again by the next run of the same date."""
    if url is None or runner.history.told(night["date"]):
        return {"posted": False, "error": None}
    error = _post(job, url, {"text": words.message(night), **summary})
    if error is None:
        runner.history.tell(night["date"])
    return {"posted": error is None, "error": error}


def _post(job: Job, url: str | None, payload: dict[str, Any]) -> str | None:
    """What went wrong, if something did: said, and nothing else, for the verdict is what counts."""
    if url is None:
        return None
    try:
        webhook.post(url, payload)
    except webhook.WebhookError as error:
        job.say(f"nightly: {error}; run the same command again to post it")
        return str(error)
    return None
