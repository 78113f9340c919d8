"""Draw the recipe's prompts for every personalized identity, in committed units over a pool of actors."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from e4t_core.storage import Store
from jobs._adapter_set import AdapterSet
from jobs._board import Board
from jobs._drawing import Painter, Task, commit_pictures, count_images, drawing_task
from jobs._job import Job
from jobs._lineage import lineage, public
from jobs._pool import announce_resources, is_local, spread
from jobs._rows import IMAGE_ROWS
from jobs._units import Unit, done, each_commit, publish_streamed

HELP = "draw the recipe's prompts for every personalized identity; does only what is missing"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of this job."""
    parser.add_argument("--shards", metavar="URI", help="the shards that personalize was given")
    parser.add_argument("--checkpoint", metavar="URI", help="the checkpoint that personalize was given")
    parser.add_argument("--adapters", metavar="URI", help="the --out of personalize")


def run(job: Job) -> dict[str, Any]:
    """Draw what is missing."""
    task, units = drawing_task(job, job.out)
    store = Store(task.out)
    finished = done(store, units)
    left = [unit for unit in units if unit.number not in finished]
    images, to_do = count_images(task.recipe, units), count_images(task.recipe, left)
    if job.dry_run:
        job.say(f"generate: {images} images in {len(units)} units, {to_do} of them to do")
        return {"dry_run": True, "images": images, "to_do": to_do, "units": len(units), "method": task.method}
    if left:
        _work(job, task, left, images, to_do)
    else:
        job.say(f"generate: nothing to do, {images} images are committed in {store.uri}")
    return _finish(job, task, store, units)


# --- doing it


def _work(job: Job, task: Task, left: Sequence[Unit], images: int, to_do: int) -> None:
    config = task.recipe.generate
    job.say(f"generate: {images} images for {task.adapters} -> {task.out} ({images - to_do} are there)")
    with job.ray(), job.progress(images, "generate", "image") as bar:
        announce_resources(job, 1, config.cpus, config.gpus)
        bar.n = bar.initial = images - to_do
        board = Board(is_local(job))

        def drawn(count: int) -> None:
            bar.update(min(count, images - bar.n))  # a unit that is done again counts twice

        with board.read_by(drawn):
            for _ in spread(Generator, (task, board), left, config):
                pass


class Generator:
    """An actor: models are loaded with its first unit and stay."""

    def __init__(self, task: Task, board: Board) -> None:
        self.task, self.painter = task, Painter(task, board.tell)

    def run(self, unit: Unit) -> int:
        """Draw and commit a unit; returns its number of images."""
        pictures = [picture for _, drawn in self.painter.draw(unit) for picture in drawn]
        commit_pictures(Store(self.task.out), unit, pictures)
        return len(pictures)


# --- the version


class _Tally:
    """What the summary needs of the rows that pass by."""

    def __init__(self) -> None:
        self.people = Counter[str]()
        self.seconds = 0.0

    def of(self, commits: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for commit in commits:
            self.people.update(row["identity"] for row in commit["rows"])
            self.seconds += sum(row["seconds_generate"] for row in commit["rows"])
            yield commit


def _finish(job: Job, task: Task, store: Store, units: Sequence[Unit]) -> dict[str, Any]:
    """Publish the version; the rows of one commit at a time are in memory."""
    failed = AdapterSet.open(task.adapters, task.adapters_version).manifest["failed"]
    tally = _Tally()

    def about() -> dict[str, Any]:
        return {
            "kind": "images",
            "method": task.method,
            "identities": len(tally.people),
            "images": tally.people.total(),
            "failed": failed,
            "recipe": public(task.recipe.dump()),
            "recipe_hash": task.recipe.hash,
            "inputs": dict(task.inputs),
            **lineage("generate", job.args),
        }

    manifest = publish_streamed(store, tally.of(each_commit(store, units)), IMAGE_ROWS, about)
    people, images = len(tally.people), tally.people.total()
    seconds = tally.seconds / max(images, 1)
    job.say(f"generate: version {manifest['version']}: {images} images of {people} identities, {seconds:.2f} s each")
    return {
        "out": store.uri,
        "version": manifest["version"],
        "method": task.method,
        "identities": people,
        "images": images,
        "failed": len(failed),
        "units": len(units),
        "seconds_per_image": seconds,
        "bytes": sum(unit["files"]["tar"]["bytes"] for unit in manifest["units"]),
    }
