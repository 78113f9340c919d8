"""A small benchmark made in this process: photographed people in committed shards, and pictures drawn of them.

Drawn pictures are the photos under a filter per prompt, so that scores differ and nothing has to be sampled.
"""

from __future__ import annotations

import contextlib
import io
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from e4t_core.backbones.config import BackboneConfig, ClipConfig, Models
from e4t_core.storage import Store
from jobs import evaluate
from jobs._job import Job
from jobs._units import IMAGE_ROWS, Unit, commit, publish
from pipelines.shards.keys import sample_key
from pipelines.shards.tar import Writer
from pipelines.sources.base import RawSample, Source, SourceConfig, SourceItem
from pipelines.stages import STAGES
from tests.shards.support import build

MODELS = Models(
    backbone=BackboneConfig(path="bundled:tiny", random_seed=0, resolution=64),
    clip=ClipConfig(path="bundled:clip_tiny", random_seed=0, every=2),
)
Photos = Mapping[str, Sequence[Image.Image | bytes]]
PROMPTS = (
    ("photo", "a photo of {}", "a photo", "plain"),
    ("sketch", "a pencil sketch of {}", "a pencil sketch", "style"),
    ("snow", "a photo of {} in the snow", "a photo of the snow", "background"),
)
FILTERS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "photo": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
    "sketch": lambda image: ImageOps.grayscale(image.filter(ImageFilter.CONTOUR)).convert("RGB"),
    "snow": lambda image: ImageEnhance.Brightness(image).enhance(1.6),
}


def face(seed: int, side: int = 64) -> Image.Image:
    """A drawn face whose colours and features come from ``seed``."""
    rng = np.random.Generator(np.random.Philox(seed))
    skin, hair, back, shirt = (tuple(int(v) for v in rng.integers(30, 226, 3)) for _ in range(4))
    image = Image.new("RGB", (256, 256), back)
    draw = ImageDraw.Draw(image)
    draw.ellipse((30, 190, 226, 400), fill=shirt)
    draw.ellipse((62, 26, 194, 170), fill=hair)
    draw.ellipse((72, 52, 184, 206), fill=skin)
    for x in (106, 150):
        draw.ellipse((x - 9, 112, x + 9, 128), fill="white")
        draw.ellipse((x - 4, 114, x + 5, 126), fill=hair)
    draw.arc((100, 140, 156, 180), 20, 160, fill=(120, 20, 30), width=5)
    return image.resize((side, side), Image.Resampling.LANCZOS)


def family(identities: int, images: int) -> dict[str, list[Image.Image]]:
    """``identities`` people with ``images`` photos each: one face under different light."""
    return {
        f"person_{i}": [ImageEnhance.Brightness(face(i)).enhance(0.8 + 0.2 * j) for j in range(images)]
        for i in range(identities)
    }


def png(image: Image.Image | bytes) -> bytes:
    """Encoded bytes; what is encoded already stays."""
    if isinstance(image, bytes):
        return image
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


class Album(Source):
    """Photos held in memory."""

    name: ClassVar[str] = "album"
    Config: ClassVar[type[SourceConfig]] = SourceConfig

    def __init__(self, photos: Photos, broken: int = 0) -> None:
        super().__init__(SourceConfig(name="album"))
        self.files = {f"{who}/{i}": png(image) for who, images in photos.items() for i, image in enumerate(images)}
        self.files |= {f"broken/{i}": b"no image" for i in range(broken)}

    def items(self, limit: int | None = None) -> Iterator[SourceItem]:
        for name, data in self.files.items():
            yield SourceItem(name, name, str(zlib.crc32(data)), {"identity": name.rsplit("/", 1)[0]})

    def read(self, item: SourceItem) -> RawSample:
        return RawSample(self.files[item.uri])


def shards(uri: str, photos: Photos, side: int = 64, broken: int = 0, samples_per_shard: int = 8) -> None:
    """Commit the photos (and ``broken`` files that are none) as shards with the one column that evaluations read."""
    ingest = STAGES.get("ingest")
    stage = ingest(ingest.Config(size=side, format="png"), MODELS)
    build(Store(uri), Album(photos, broken), [stage], samples_per_shard=samples_per_shard)


def images(
    uri: str,
    photos: Photos,
    method: str = "e4t",
    per_prompt: int = 1,
    per_unit: int = 2,
    prompts: Sequence[tuple[str, str, str, str]] = PROMPTS,
    draw: Callable[[str, Image.Image, int], Image.Image | bytes] | None = None,
    norms: int = 5,
    failed: Sequence[str] = (),
    seen: int = 1,
) -> None:
    """An image set as ``generate`` writes it: every identity under every prompt, from its first photo; ``seen`` says
    from how many it is said to have been learned."""
    store = Store(uri)
    names = sorted(photos)
    rows: list[dict[str, Any]] = []
    commits = {}
    for number, at in enumerate(range(0, len(names), per_unit)):
        part: list[dict[str, Any]] = []
        writer = Writer()
        for who in names[at : at + per_unit]:
            part += _identity(writer, who, photos[who][0], method, number, prompts, per_prompt, draw, norms, seen)
        tar = writer.finish()
        for row in part:
            span = tar.spans[sample_key(f"{row['identity']}/{row['prompt']}/{row['index']}")]
            row |= {"offset": span.offset, "size": span.size, "crc32": span.crc32}
        unit = Unit("images", number, f"test{number:012d}", tuple(names[at : at + per_unit]))
        commits[number] = commit(store, unit, {"tar": tar.data}, {})
        rows += part
    order = {name: i for i, (name, *_) in enumerate(prompts)}
    rows.sort(key=lambda row: (row["identity"], order[row["prompt"]], row["index"]))
    inputs = {"method": method, "checkpoint": "out/checkpoint", "checkpoint_sha256": "c" * 64}
    about: dict[str, Any] = {
        "kind": "images",
        "method": method,
        "recipe": {},
        "recipe_hash": "r" * 16,
        "inputs": inputs,
    }
    about["command"] = f"python -m jobs generate --out {method}"
    about["failed"] = dict.fromkeys(failed, "ValueError: no face")
    publish(store, commits, rows, IMAGE_ROWS, about)


def _identity(
    writer: Writer,
    who: str,
    photo: Image.Image,
    method: str,
    unit: int,
    prompts: Sequence[tuple[str, str, str, str]],
    per_prompt: int,
    draw: Callable[[str, Image.Image, int], Image.Image | bytes] | None,
    norms: int,
    seen: int,
) -> list[dict[str, Any]]:
    number = zlib.crc32(who.encode()) % 1000
    paint = draw or (lambda prompt, image, index: FILTERS[prompt](image))
    out = []
    for prompt, template, concept_less, kind in sorted(prompts):
        for index in range(per_prompt):
            writer.add(sample_key(f"{who}/{prompt}/{index}"), {"png": png(paint(prompt, photo, index))})
            out.append(
                {
                    "method": method,
                    "identity": who,
                    "prompt": prompt,
                    "prompt_text": template.format("S*"),
                    "concept_less": concept_less,
                    "kind": kind,
                    "index": index,
                    "seed": index,
                    "unit": unit,
                    "seconds_generate": 0.5 + number / 1000,
                    "steps": 15,
                    "seconds_personalize": 2.0 + number / 500,
                    "seconds_setup": 4.0,
                    "peak_memory_bytes": 900_000_000,
                    "bytes_adapter": 1_800_000,
                    "embedding_norm_json": json.dumps(
                        [1 + number / 900 + 0.6 * (s / max(norms, 1)) ** 2 for s in range(norms)]
                    ),
                    "near": None if norms else "corgi, fox, puppy",
                    "input_key": sample_key(f"{who}/0"),
                    "input_keys": [sample_key(f"{who}/{photo}") for photo in range(seen)],
                }
            )
    return out


def without_ray(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """``evaluate`` does in this process what actors would; the list collects units by number, other tasks whole."""
    scored: list[Any] = []

    def spread(worker: type, args: Sequence[Any], tasks: Sequence[Any], config: Any) -> Iterator[tuple[Any, Any]]:
        actor = worker(*args)
        for task in tasks:
            scored.append(task[0] if isinstance(task, tuple) else task)
            yield task, actor.run(task)

    monkeypatch.setattr(evaluate, "spread", spread)
    monkeypatch.setattr(evaluate, "announce_resources", lambda *args: None)
    monkeypatch.setattr(Job, "ray", lambda self: contextlib.nullcontext())
    return scored
