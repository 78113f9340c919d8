"""``lidb``: LiDB weights tuned for the one person in each image, which a hypernetwork learns to predict
(HyperDreamBooth section 4.2).

The most expensive column by far, so ``python -m jobs targets`` makes it and ``preprocess`` does not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
from pydantic import Field

from e4t_core.adapters.concurrent import Subject, TuneConfig, Tuned, tune, tuning_fit
from e4t_core.adapters.lidb import LiDBConfig, Space
from e4t_core.adapters.tunable import LiDBWeights
from e4t_core.backbones import backbone_weights_fingerprint, load_backbone
from e4t_core.errors import UsageError
from e4t_core.record import content_hash
from e4t_core.schema import Sample, decode_array, encode_array, encode_json
from pipelines.stages.base import Bad, Measured, Stage, StageConfig

if TYPE_CHECKING:
    from e4t_core.backbones.base import Backbone


class LidbStageConfig(StageConfig):
    """Which weights, tuned how, to which prompt.

    ``tune.identities`` are tuned at once out of the ``resources.batch_size`` samples of a call, and one that ends makes
    room for the next: many to a call keep the device busy. A shard is lost when its worker is, and one of 512 samples
    takes hours at full size: cut shards for this column small (``shards.samples_per_shard``).

    Attributes:
        lidb: the space of the weights; everybody's live in one, or they could not be compared.
        tune: the optimization of each.
        prompt: what each image shows, the paper's "a [V] face" with a rare word for [V].
        seed: of the noise, together with a sample's key.
    """

    lidb: LiDBConfig = LiDBConfig()
    tune: TuneConfig
    prompt: Annotated[str, Field(min_length=1)] = "a sks face"
    seed: Annotated[int, Field(ge=0)] = 0


class Lidb(Stage):
    """``lidb.npy`` (P,) float32, see :meth:`Space.flat`, and ``lidb.json``: the space and its checksum, steps, losses.

    A sample's noise comes from its key and the stage's seed, so that its company, its place in a shard and how many
    are tuned at once change its weights by rounding alone. A sample that diverges is quarantined as ``diverged``, one
    whose loss on its probe does not fall as ``not_improved``.
    """

    name: ClassVar[str] = "lidb"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("latent",)
    writes: ClassVar[tuple[str, ...]] = ("lidb.npy", "lidb.json")
    Config: ClassVar[type[StageConfig]] = LidbStageConfig
    command: ClassVar[str] = "targets"
    agrees: ClassVar[tuple[str, ...]] = ("lidb", "prompt")
    config: LidbStageConfig
    backbone: Backbone
    tunable: LiDBWeights

    def settings(self) -> dict[str, Any]:
        plain = super().settings()
        # how many at once is up to the device's memory, as a batch size is
        tuning = {k: v for k, v in plain["tune"].items() if k != "identities"}
        return {**plain, "tune": tuning, "dtype": self.models.backbone.dtype}

    def weights(self) -> str:
        return backbone_weights_fingerprint(self.models.backbone)

    def setup(self) -> None:
        c = self.config
        self.backbone = load_backbone(self.models.backbone, c.resources.device)
        self.tunable = LiDBWeights(self.backbone, Space.of(self.backbone, c.lidb))
        self.ids_1T = self.backbone.tokenize([c.prompt])
        self.fitting = tuning_fit()

    def __call__(self, batch: Sequence[Sample]) -> list[Measured | Bad]:
        subjects = (self._subject(sample) for sample in batch)
        results = {
            tuned.id: self._result(tuned)
            for tuned in tune(self.backbone, self.tunable, subjects, self.config.tune, self.fitting)
        }
        return [results[sample["__key__"]] for sample in batch]

    def _subject(self, sample: Sample) -> Subject:
        key = sample["__key__"]
        moments = torch.from_numpy(decode_array(sample["latent.npy"], f"latent.npy of {key}")).float()
        channels, *side = self.backbone.latent_shape
        if tuple(moments.shape) != (2 * channels, *side):
            raise UsageError(
                f"latent.npy of {key} is {tuple(moments.shape)}; backbone.resolution = "
                f"{self.models.backbone.resolution} needs {(2 * channels, *side)}: run preprocess with this recipe"
            )
        return Subject(key, self._seed(key), moments.unsqueeze(0), self.ids_1T)

    def _seed(self, key: str) -> int:
        """63 bits that are the sample's own."""
        return int(content_hash(f"{self.name}:{self.config.seed}:{key}".encode(), 16), 16) >> 1

    def _result(self, tuned: Tuned) -> Measured | Bad:
        tuning, losses = self.config.tune, {"loss_before": tuned.loss_before, "loss_after": tuned.loss_after}
        figures: dict[str, float] = {"steps": tuned.steps, "seconds": tuned.seconds}
        figures |= {name: loss for name, loss in losses.items() if math.isfinite(loss)}
        if tuned.diverged_at is not None:
            what = f"loss or gradient is not finite at step {tuned.diverged_at} of {tuning.steps}"
            return Bad("diverged", f"{what}; lower stages.lidb.tune.lr ({tuning.lr:g})", figures)
        if not tuned.loss_after < tuned.loss_before:
            what = f"the loss was {tuned.loss_before:.6g} and is {tuned.loss_after:.6g} after {tuned.steps} steps"
            return Bad("not_improved", f"{what}; change stages.lidb.tune.lr ({tuning.lr:g}) or .steps", figures)
        weights_P = self.tunable.space.flat(tuned.tensors)
        about = {**self._about(), "steps": tuned.steps, **losses}
        return Measured({"lidb.npy": encode_array(weights_P.numpy()), "lidb.json": encode_json(about)}, figures)

    def _about(self) -> Mapping[str, Any]:
        """The space, for whoever reads the weights."""
        space = self.tunable.space
        return {**space.config.dump(), "checksum": space.checksum}
