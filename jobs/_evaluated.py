"""What an evaluation is made from: generated images or adapters to draw, real images, metrics."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from e4t_core.errors import DataError, UsageError
from e4t_core.metrics import BaseMetric, SetMetric
from e4t_core.record import fingerprint
from e4t_core.storage import Store
from jobs import _scores
from jobs._fresh import Fresh
from jobs._job import Job
from jobs._models import absolute
from jobs._real_sets import RealSet
from jobs._units import ImageSet
from pipelines.shards.manifest import load_manifest


@dataclass
class Inputs:
    """The inputs that a job's flags and recipe name, each opened when it is first asked for.

    Attributes:
        job: whose.
    """

    job: Job

    @cached_property
    def fresh(self) -> Fresh | None:
        """What is drawn here; None if the images are given.

        Raises:
            UsageError: both are asked for.
        """
        args = self.job.args
        if args.adapters and args.images:
            raise UsageError("--images are there to be scored and --adapters to be drawn first: give one of them")
        return Fresh.of(self.job) if args.adapters else None

    @property
    def made_from(self) -> str:
        """Where the images come from, for messages."""
        return self.fresh.task.adapters if self.fresh is not None else self.images_uri

    @cached_property
    def images_uri(self) -> str:
        """Where the generated images are; of those drawn here, the ones that stay."""
        if self.fresh is not None:
            return self.fresh.task.out
        return absolute(self.job.required("images", "what `python -m jobs generate --out` wrote"))

    @cached_property
    def shards_uri(self) -> str:
        """Where the real images are."""
        return absolute(self.job.required("shards", "what `python -m jobs preprocess --out` wrote, generate's too"))

    @cached_property
    def images(self) -> ImageSet:
        """The generated images; of those drawn here, the ones that stay, once they are published."""
        return ImageSet.open(self.images_uri)

    @cached_property
    def count(self) -> int:
        """Images to score.

        Raises:
            DataError: there are none.
        """
        if self.fresh is not None:
            found, why = len(self.fresh), "nobody's personalization succeeded"
        else:
            found, why = len(self.images), self.images.manifest.get("failed", "nothing was drawn")
        if not found:
            raise DataError(f"{self.made_from} holds no images: {why}")
        return found

    @cached_property
    def references(self) -> tuple[int, str]:
        """The shards' version, and a content fingerprint of their images."""
        manifest = load_manifest(Store(self.shards_uri))
        return manifest.version, fingerprint({str(n): ref.sha256 for n, ref in manifest.refs("ingest").items()})

    @cached_property
    def metrics(self) -> dict[str, BaseMetric]:
        """The configured metrics, not loaded."""
        recipe = self.job.recipe
        return _scores.build(recipe.metrics, recipe.models, recipe.evaluate.device)

    @cached_property
    def sets(self) -> dict[str, SetMetric]:
        """Those of whole sets."""
        return _scores.of_sets(self.metrics)

    @cached_property
    def cache(self) -> Store:
        """Where vectors of real images are."""
        return Store(absolute(self.job.args.cache)) if self.job.args.cache else self.job.store

    @cached_property
    def real(self) -> dict[str, RealSet]:
        """Metric of sets -> the real images that it compares with."""
        seed, (version, _) = self.job.recipe.seed, self.references
        return {name: RealSet.of(metric, self.shards_uri, version, seed) for name, metric in self.sets.items()}

    @cached_property
    def keys(self) -> dict[int, str]:
        """Unit -> key of its scores."""
        if self.fresh is not None:
            return self.fresh.keys(self.references[1], self.metrics)
        return _scores.unit_keys(self.images, self.references[1], self.metrics)
