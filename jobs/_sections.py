"""The recipe's own sections: what the jobs need beyond the sections that sources, stages and methods define."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from e4t_core.config import Config
from e4t_core.errors import nearest
from e4t_core.sampling import SamplerConfig

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class ShardsConfig(Config):
    """How data is cut and how much of it may be bad.

    Attributes:
        samples_per_shard: samples in a shard, the unit of work (256 to 1,000 on a cluster).
        allowed_bad_share: over this share of quarantined samples a job ends with exit code 3.
    """

    samples_per_shard: Count = 512
    allowed_bad_share: Share = 0.01


class WorkersConfig(Config):
    """Ray Train workers.

    Attributes:
        num_workers: data-parallel workers, over as many nodes as hold them.
        cpus, gpus: reserved per worker.
        threads: torch threads per worker.
        device: torch device string.
        max_failures: worker losses that are survived by resuming from the last checkpoint.
    """

    num_workers: Count = 1
    cpus: float = 1.0
    gpus: float = 0.0
    threads: Count = 1
    device: str = "cpu"
    max_failures: int = 3


class ActorsConfig(Config):
    """A pool of actors that each load the models once.

    Attributes:
        actors: most actors at once.
        cpus, gpus: reserved per actor.
        threads: torch threads per actor.
        device: torch device string.
    """

    actors: Count = 1
    cpus: float = 1.0
    gpus: float = 0.0
    threads: Count = 1
    device: str = "cpu"


class PersonalizeConfig(ActorsConfig):
    """Which identities are personalized, from which of their images, and in units of how many.

    Attributes:
        images: of each identity, drawn by the recipe's seed: a number (fewer are a part of more), or ``all``. More than
            one takes a method that learns from several.
        held_out: images of each identity that are shown to no method, so that ``evaluate`` can compare with them; they
            are the last that a larger ``images`` would draw.
        identities_per_shard: identities in one committed unit of work.
        min_images, max_images: identities with fewer or more images are left out (both bounds included).
        max_identities: at most this many, in id order.
        allowed_failed_share: over this share of failed identities the job ends with exit code 3.
    """

    later: ClassVar[frozenset[str]] = frozenset({"images", "held_out"})

    images: Count | Literal["all"] = 1
    held_out: Annotated[int, Field(ge=0)] = 0
    identities_per_shard: Count = 16
    min_images: Count = 1
    max_images: int | None = None
    max_identities: int | None = None
    allowed_failed_share: Share = 0.0

    @model_validator(mode="after")
    def _has_as_many(self) -> PersonalizeConfig:
        needed = self.held_out + (1 if self.images == "all" else self.images)
        if self.min_images < needed:
            held = f" and {self.held_out} held out" if self.held_out else ""
            raise ValueError(
                f"images is {self.images}{held}, which takes identities of {needed} images or more, and min_images is "
                f"{self.min_images}: set min_images={needed} to leave smaller ones out"
            )
        return self


class BenchmarkConfig(Config):
    """Who is in the benchmark: what is given here goes over the same fields of ``personalize``, which decides it.

    Attributes:
        min_images, max_images: identities with fewer or more images are left out (both bounds included).
        max_identities: at most this many, in id order; 5749 is everybody in LFW.
    """

    min_images: Count | None = None
    max_images: Count | None = None
    max_identities: Count | None = None


class Prompt(Config):
    """One line of the benchmark.

    Attributes:
        name: short file-safe name.
        template: the prompt, with ``{}`` for the concept.
        concept_less: the same without the concept, for CLIP-T.
        kind: ``plain``, ``style``, ``background``, ``accessory`` or ``full_body``: how reports group prompts.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    template: Annotated[str, Field(pattern=r"^[^{}]*\{\}[^{}]*$")]
    concept_less: str
    kind: str = "plain"


class GenerateConfig(ActorsConfig):
    """What is drawn for every identity.

    Attributes:
        sampler: how images are drawn from noise.
        prompts: the benchmark's.
        images_per_prompt: images of each prompt, with seeds of their own.
        batch_size: images of one identity that are drawn together.
    """

    sampler: SamplerConfig
    prompts: Annotated[tuple[Prompt, ...], Field(min_length=1)]
    images_per_prompt: Count = 1
    batch_size: Count = 8


class EvaluateConfig(ActorsConfig):
    """How aggregates get their intervals. The metrics themselves are the recipe's ``metrics`` section.

    Attributes:
        bootstrap_samples: resamples over identities.
        confidence: two-sided level of the intervals.
        keep_identities: where `evaluate` draws the images itself, the pictures of so many identities are kept, the
            first in order; ``null`` keeps all, 0 none.
    """

    later: ClassVar[frozenset[str]] = frozenset({"keep_identities"})

    bootstrap_samples: Count = 2000
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    keep_identities: Annotated[int, Field(ge=0)] | None = None


class BesideConfig(Config):
    """Another method that `ablate` puts beside the variants: same identities, prompts and judges.

    Attributes:
        recipe: the recipe (shipped name, path or URI) whose section ``method`` it takes.
        changes: to this recipe with that method, as ``{method.personalize.mask: false}``.
        checkpoint: what `pretrain` wrote for it; ``null`` if it is not pre-trained.
    """

    recipe: str
    changes: dict[str, Any] = Field(default_factory=dict)
    checkpoint: str | None = None


class AblationsConfig(Config):
    """What `ablate` compares.

    Attributes:
        variants: name -> changes to this recipe, ``{method.offsets: direct}``. The first is what all are compared to.
        beside: name -> another method, on the same page.
        people: changes that make the source give the identities that are personalized.
    """

    variants: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    beside: dict[str, BesideConfig] = Field(default_factory=dict)
    people: dict[str, Any] = Field(default_factory=dict)


class NightlyMethod(Config):
    """One method of a night.

    Attributes:
        recipe: the recipe (shipped name, path or URI) whose method it is and whose data it is pre-trained on; ``null``
            is the nightly's own, with a checkpoint that is given. People and held-out photos, prompts, sampler,
            metrics, models and machines are always the nightly's.
        changes: to that recipe, as ``{method.personalize.steps: 40}``.
        checkpoint: what `pretrain` wrote; ``null`` pre-trains by ``recipe`` on the first night.
        as_long_as: another method of the night, whose mean seconds to learn one identity, measured in the same night,
            are the ``method.personalize.seconds`` of this one. The recipe's ``steps`` still end it if they come first.
    """

    recipe: str | None = None
    changes: dict[str, Any] = Field(default_factory=dict)
    checkpoint: str | None = None
    as_long_as: str | None = None


class NightlyConfig(Config):
    """What `nightly` runs, and what it takes for a drop.

    Attributes:
        methods: name -> method.
        people: changes that make the recipe give the identities that are personalized; ``--set`` goes over them.
        pins: what data and weights must be: ``data``, ``backbone``, ``clip``, ``metrics.NAME`` or ``methods.NAME``
            (a checkpoint) -> its fingerprint. `nightly --dry-run` shows those there are.
        alpha: family-wise error rate over all scores of all methods.
        confirm: good nights, the last one and those before it, whose mean has to confirm what moved; 1 takes the last
            one's word. Nights before one in which the score moved do not count.
        effects: score -> the smallest drop that matters, in its own unit; held-out scores take that of their score.
            ``scored`` is for the share of an identity's images that could be scored.
        effect: the same for scores that are not named.
        bootstrap_samples: resamples over identities.
        keep: finished nights whose adapters and pictures stay; scores, reports and history always do.
        webhook: where a summary is posted as JSON with ``text`` (Slack's form); ``null`` takes the environment's
            ``NIGHTLY_WEBHOOK``, else nobody is told. Such addresses are secrets: it enters no record.
    """

    methods: Annotated[dict[Annotated[str, Field(pattern=r"^[a-z0-9_]+$")], NightlyMethod], Field(min_length=1)]
    people: dict[str, Any] = Field(default_factory=dict)
    pins: dict[str, str] = Field(default_factory=dict)
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    confirm: Count = 5
    effects: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    effect: Annotated[float, Field(ge=0)] = 0.01
    bootstrap_samples: Annotated[int, Field(ge=100)] = 5000
    keep: Count = 2
    webhook: str | None = Field(default=None, exclude=True)

    @model_validator(mode="after")
    def _as_long_as_one_that_takes_its_own_time(self) -> NightlyConfig:
        timed = {name: method.as_long_as for name, method in self.methods.items() if method.as_long_as is not None}
        known = [name for name in self.methods if name not in timed]
        for name, other in timed.items():
            if other not in known:
                raise ValueError(
                    f"methods.{name}.as_long_as: no method of the night that takes its own time is called "
                    f"'{other}'{nearest(other, known)}"
                )
        return self


class RayConfig(Config):
    """Which Ray.

    Attributes:
        address: ``null`` joins the cluster that ``RAY_ADDRESS`` names (as inside ``ray job submit``), else starts a
            local one for the duration of the job; ``auto`` or ``ray://host:port`` joins that one.
        num_cpus: logical CPUs of a local Ray (all if ``null``).
    """

    address: str | None = None
    num_cpus: int | None = None


class MlflowConfig(Config):
    """Where runs are logged.

    Attributes:
        uri: tracking URI; ``null`` takes ``MLFLOW_TRACKING_URI``, else sqlite beside ``--out``.
        experiment: experiment name.
    """

    uri: str | None = None
    experiment: str = "e4t"
