"""Train the small stack that ships with the package, from nothing, by one recipe."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from e4t_core.errors import UsageError
from e4t_core.storage import Store
from jobs._job import Job, chosen
from jobs._tiny_stack.config import StackConfig

HELP = "train the small stack that ships with the package, and encoders on it; resumable"
RECIPE = "tiny_stack"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of this job."""
    parser.add_argument("--only", metavar="A,B", help="these of pictures, vae, clip, identity, diffusion, encoders")
    parser.add_argument("--init", metavar="DIR|bundled", help="begin from the weights of an earlier run or the package")
    parser.add_argument("--evaluate", action="store_true", help="train nothing; measure what --out or the package has")
    parser.add_argument(
        "--install", nargs="?", const="bundled", metavar="DIR", help="train nothing; put --out's stack in the package"
    )


def run(job: Job) -> dict[str, Any]:
    """Train what is missing, then measure; with ``--evaluate`` or ``--install`` only that."""
    stack, out = _stack(job), _folder(job)
    from jobs._tiny_stack.check import check  # torch and diffusers: not for --help
    from jobs._tiny_stack.encoders import train_encoders
    from jobs._tiny_stack.order import ALL, ENCODERS, PARTS, run_parts

    check(stack)
    only = chosen(job.args.only, ALL, "part")
    work = _work(job, stack, out)
    if job.dry_run:
        from jobs._tiny_stack.plan import plan

        return plan(work, only)
    training = not (job.args.evaluate or job.args.install)
    if training:
        run_parts(work, only)
        if ENCODERS in only:
            train_encoders(work)
    summary: dict[str, Any] = {"out": str(out), "recipe_hash": job.recipe.hash}
    if job.args.evaluate or (training and set(only) & set(PARTS)):
        from jobs._tiny_stack.evaluation import evaluate

        summary |= evaluate(work)
    if job.args.install:
        from jobs._tiny_stack.install import install

        summary |= install(work, job.args.install)
    return summary


def _stack(job: Job) -> StackConfig:
    if job.recipe.stack is None:
        raise UsageError(f"recipe '{job.recipe.name}' has no section 'stack'; use --recipe {RECIPE} or extend it")
    return job.recipe.stack


def _folder(job: Job) -> Path:
    """Pictures and latents are mapped into memory, so they lie in a local folder."""
    store = Store(job.out)
    if not store.local:
        raise UsageError(f"--out {job.out}: train-tiny works in a local folder; copy its `stack` folder afterwards")
    return Path(store.root)


def _work(job: Job, stack: StackConfig, out: Path) -> Any:
    from jobs._tiny_stack.files import stack_at
    from jobs._tiny_stack.work import Work

    init = stack_at(job.args.init) if job.args.init else None
    return Work(job, stack, job.recipe.seed, out, init)
