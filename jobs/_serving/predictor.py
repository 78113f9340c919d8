"""Drawing from a prompt, as MLflow's ``pyfunc`` flavour calls it."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext
from mlflow.types import ColSpec, DataType, Schema

from e4t_core.errors import UsageError
from e4t_core.images import encode_png
from e4t_core.methods.base import Adapter, Identity
from e4t_core.sampling import sample
from e4t_core.storage import Store
from jobs import _recipe
from jobs._models import Loaded, load_models
from jobs._serving.bundle import Bundle

BUNDLE = "e4t"
"""Name of the bundle among the model's artifacts."""
MOST_IMAGES = 64
"""In one row: a request that asks for more is a mistake or an attack."""
INPUT = Schema(
    [
        ColSpec(DataType.string, "prompt"),
        ColSpec(DataType.string, "identity"),
        ColSpec(DataType.long, "seed", required=False),
        ColSpec(DataType.long, "images", required=False),
    ]
)
"""A row a request: ``{}`` in the prompt stands for the identity. Image n of a row has the seed ``seed + n``; without a
seed it is the recipe's. It is the noise's, so the one that ``generate`` wrote draws the benchmark's image again."""
OUTPUT = Schema(
    [
        ColSpec(DataType.long, "row"),
        ColSpec(DataType.string, "identity"),
        ColSpec(DataType.string, "prompt"),
        ColSpec(DataType.long, "seed"),
        ColSpec(DataType.string, "image"),
    ]
)
"""A row an image; ``row`` is the number of the request's, from 0, and ``image`` PNG bytes in base64."""


@dataclass(frozen=True)
class Wish:
    """One image to draw."""

    row: int
    identity: str
    prompt: str
    seed: int


class Predictor(PythonModel):
    """Draws identities of one bundle. Models are loaded once, identities as they are asked for."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load recipe, backbone and module."""
        self.bundle = Bundle(Store(context.artifacts[BUNDLE]))
        self.recipe = _recipe.load(self.bundle.recipe)
        config = self.recipe.generate
        self.models: Loaded = load_models(self.recipe, config, self.bundle.clip_dims(), self.bundle.checkpoint)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Draw a data frame with the columns of :data:`INPUT`; the answer has those of :data:`OUTPUT`.

        Raises:
            UsageError: a row asks for what this model cannot draw; names it and what would be right.
        """
        wishes = list(wishes_of(model_input, self.recipe.seed))
        drawn: dict[Wish, bytes] = {}
        for identity in dict.fromkeys(wish.identity for wish in wishes):
            adapter, inputs = self.bundle.read(identity, self.recipe.seed)
            own = [wish for wish in dict.fromkeys(wishes) if wish.identity == identity]
            for at in range(0, len(own), self.recipe.generate.batch_size):
                batch = own[at : at + self.recipe.generate.batch_size]
                drawn |= zip(batch, self._draw(adapter, inputs, batch), strict=True)
        rows = [{**vars(wish), "image": base64.b64encode(drawn[wish]).decode()} for wish in wishes]
        return pd.DataFrame(rows, columns=OUTPUT.input_names())

    def _draw(self, adapter: Adapter, identity: Identity, batch: Sequence[Wish]) -> list[bytes]:
        method, backbone, module = self.models.method, self.models.backbone, self.models.module
        prompts = [wish.prompt.replace("{}", backbone.placeholder) for wish in batch]
        conditioning = method.conditioning(module, backbone, adapter, identity, prompts)
        seeds = [wish.seed for wish in batch]
        images_B3HW = sample(backbone, conditioning, self.recipe.generate.sampler, seeds).cpu()
        return [encode_png(image_3HW) for image_3HW in images_B3HW]


def wishes_of(frame: pd.DataFrame, seed: int) -> Iterator[Wish]:
    """The images that the rows of a data frame ask for, in order.

    Args:
        seed: of rows that have none.

    Raises:
        UsageError: a row has no prompt with a place for the identity, or a number out of range.
    """
    for number, row in enumerate(frame.to_dict("records")):
        prompt, identity = str(row["prompt"]), str(row["identity"])
        if prompt.count("{}") != 1:
            raise UsageError(f"row {number}: prompt {prompt!r} needs one {{}} where '{identity}' is to be")
        first = _whole(number, row, "seed", seed, 0, 2**63 - 1 - MOST_IMAGES)
        for image in range(_whole(number, row, "images", 1, 1, MOST_IMAGES)):
            yield Wish(number, identity, prompt, first + image)


def _whole(number: int, row: dict[Any, Any], name: str, default: int, low: int, high: int) -> int:
    value = row.get(name)
    if value is None or pd.isna(value):
        return default
    if int(value) != value or not low <= value <= high:
        raise UsageError(f"row {number}: {name} is {value!r}; it is a whole number from {low} to {high}")
    return int(value)
