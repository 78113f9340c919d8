"""Images per second of the sampler: 50 steps of DDIM with guidance 7.5, as the recipes for Stable Diffusion say."""

from __future__ import annotations

from collections.abc import Iterator

from e4t_core.sampling import sample
from e4t_core.sampling.text import TextConditioning
from tests.benchmarks.full_size.rig import Rig
from tests.benchmarks.measure import Figure

AT_ONCE = (1, 8, 16)


def run(rig: Rig) -> Iterator[Figure]:
    """One image at a time and several in a batch."""
    recipe = rig.recipe("e4t")
    full = recipe.generate.sampler
    warm = full.model_copy(update={"steps": 2})
    for count in sorted({rig.few(n) for n in AT_ONCE}):
        conditioning = TextConditioning(rig.backbone, ["a photo of a face"] * count)
        seeds = list(range(count))
        sample(rig.backbone, conditioning, warm, seeds)
        rig.fresh()
        taken = rig.seconds(lambda c=conditioning, s=seeds: sample(rig.backbone, c, full, s))  # type: ignore[misc]
        yield Figure(
            f"drawing, {count} at once", count / taken, "images/s",
            note=f"{full.steps} steps of {full.scheduler}, guidance {full.guidance:g}, peak {rig.peak_gb():.1f} GB",
        )  # fmt: skip
