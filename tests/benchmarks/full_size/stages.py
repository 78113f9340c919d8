"""Images per second of the stages that run a model, from encoded files to the members of their columns."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import partial

from PIL import Image

from e4t_core.schema import Sample
from pipelines.stages import STAGES
from tests.benchmarks.full_size.rig import Rig
from tests.benchmarks.measure import Figure

_BATCHES, _THREADS = 4, 8


def run(rig: Rig) -> Iterator[Figure]:
    """Decoding, which a worker does beside the model in use, and the model, apart."""
    on = f"{{threads: {_THREADS}, device: {rig.device.type}}}"
    recipe = rig.recipe(
        "e4t", f"stages.clip.resources={on}", f"stages.latent.resources={on}", "stages.clip.tokens=true"
    )
    for name, size in (("clip", 64), ("latent", 16)):
        stage = STAGES.get(name)(recipe.stages[name], recipe.models)
        rig.fresh()
        loading = rig.seconds(stage.setup)
        batches = [_files(rig, rig.few(size)) for _ in range(rig.few(_BATCHES) + 1)]
        stage(batches[0])
        images = sum(len(batch) for batch in batches[1:])
        decoding = sum(rig.seconds(partial(stage.prepare, batch)) for batch in batches[1:])
        taken = sum(rig.seconds(partial(stage, batch)) for batch in batches[1:])
        note = f"batch {len(batches[0])}, peak {rig.peak_gb():.1f} GB, models drawn in {loading:.0f} s"
        yield Figure(f"stage {name}: model", images / taken, "images/s", note=note)
        yield Figure(f"stage {name}: decoding", images / decoding, "images/s", note=f"{_THREADS} threads")


def _files(rig: Rig, count: int) -> list[Sample]:
    pixels = ((rig.pixels(1)[0].permute(1, 2, 0) + 1) * 127.5).byte().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).resize((pixels.shape[1] // 8, pixels.shape[0] // 8)).resize(pixels.shape[1::-1]).save(
        file, "jpeg", quality=95
    )
    return [{"__key__": str(n), "__id__": str(n), "image.jpg": file.getvalue()} for n in range(count)]
