"""The recipe's ``stack`` section: how the small stack that ships with the package is trained."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from e4t_core.config import Config

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]


class RunConfig(Config):
    """Where and how it runs; nothing here changes what is learned beyond rounding.

    Attributes:
        device: torch device string.
        threads: torch threads.
        processes: processes that draw pictures.
        checkpoint_minutes: minutes between checkpoints; the end of a part and a stop signal always make one.
        log_every: steps between log lines.
    """

    device: str = "cpu"
    threads: Count = 2
    processes: Count = 2
    checkpoint_minutes: Positive = 5.0
    log_every: Count = 50


class DomainConfig(Config):
    """One domain's pictures.

    Attributes:
        identities, images_per_identity: how many; styles and scenes go round within each identity.
        share: how often its pictures are drawn in training, relative to the other domains.
        class_words: what a sentence can call it (``a person``); by default the class of each identity.
    """

    identities: Count
    images_per_identity: Count = 8
    share: Positive = 1.0
    class_words: tuple[str, ...] = ()


class PicturesConfig(Config):
    """What is drawn to learn from.

    Attributes:
        seed: of the world; evaluation draws from the same world's test split.
        size: pixels of a side.
        domains: by name; ``null`` leaves one out.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    size: Annotated[int, Field(ge=32, multiple_of=8)] = 64
    domains: dict[str, DomainConfig | None]


class TrainingConfig(Config):
    """What every part's training has.

    Attributes:
        steps: optimizer steps. The learning rate's course depends on it, so it cannot be raised later.
        batch_size: pictures in a step.
        learning_rate: the peak of one cycle (Smith & Topin 2018): up from a 25th within ``warmup``, down as a cosine.
        warmup: share of the steps in which the rate rises.
        weight_decay, betas: AdamW's.
        grad_clip: largest gradient norm.
        precision: ``bf16`` computes under autocast; weights and optimizer stay float32.
        ema_decay: of the average of the weights that is saved, reached through a warm-up; ``null`` saves the weights.
        model: values that replace those of the base folder's configuration file.
    """

    steps: Count
    batch_size: Count = 64
    learning_rate: Positive = 1e-3
    warmup: Share = 0.05
    weight_decay: Weight = 0.01
    betas: tuple[Share, Share] = (0.9, 0.99)
    grad_clip: Positive = 1.0
    precision: Literal["fp32", "bf16"] = "bf16"
    ema_decay: Share | None = 0.999
    model: dict[str, Any] = Field(default_factory=dict)


class VaeConfig(TrainingConfig):
    """The autoencoder's loss: ``l1 |x - y| + l2 (x - y)^2 + edges sum_k |L_k(x) - L_k(y)| + kl KL(q(z|x) || N(0, 1))``.

    Attributes:
        l1, l2: weights of the pixel errors.
        edges: weight of the Laplacian pyramid's, which keeps thin lines.
        kl: weight of the divergence, in nats per latent value.
    """

    l1: Weight = 1.0
    l2: Weight = 1.0
    edges: Weight = 1.0
    kl: Weight = 1e-5


class TextMix(Config):
    """How often each kind of text stands for a picture, relative to the others.

    Attributes:
        caption: the full caption.
        phrase: the sentence with the two most telling attributes.
        sentence: the sentence with a class word.
        attributes: attribute words in any order.
        style: the style alone; ``scene``: the place alone; ``place``: both without a concept.
        empty: no text, for classifier-free guidance.
    """

    caption: Weight = 0.0
    phrase: Weight = 0.0
    sentence: Weight = 0.0
    attributes: Weight = 0.0
    style: Weight = 0.0
    scene: Weight = 0.0
    place: Weight = 0.0
    empty: Weight = 0.0


class ClipTrainingConfig(TrainingConfig):
    """The image and text towers.

    Attributes:
        texts: what stands beside a picture.
    """

    texts: TextMix


class IdentityTrainingConfig(TrainingConfig):
    """The identity network: additive angular margin (ArcFace, Deng et al. 2019) over identities and over pairs.

    Attributes:
        domain: whose identities it learns to tell apart.
        pictures_per_identity: pictures of one identity in a batch.
        scale, margin: ArcFace's ``s`` and ``m`` (radians).
        margin_warmup: share of the steps in which the margin rises from 0.
        classes: weight of the loss over all identities' centres.
        pairs: weight of the same loss over the other pictures of the batch, which learns before the centres have.
        channels: of the network's four stages.
        width: of the embedding.
    """

    domain: str = "face"
    pictures_per_identity: Annotated[int, Field(ge=2)] = 4
    scale: Positive = 24.0
    margin: Weight = 0.3
    margin_warmup: Share = 0.4
    classes: Weight = 1.0
    pairs: Weight = 1.0
    channels: tuple[Count, Count, Count, Count] = (32, 64, 96, 128)
    width: Count = 128


class DiffusionConfig(TrainingConfig):
    """UNet and text encoder, trained together to predict what the base's scheduler says: v (or eps).

    Attributes:
        snr_gamma: bound on what clear images weigh (min-SNR, Hang et al. 2023); 5 in the paper.
        text_model: like ``model``, for the text encoder.
        texts: what stands beside a picture.
    """

    snr_gamma: Positive = 5.0
    text_model: dict[str, Any] = Field(default_factory=dict)
    texts: TextMix


class StackEvaluationConfig(Config):
    """What is measured, all on the test split.

    Attributes:
        identities: of the identity network's domain.
        images_per_identity: pictures of each, through all styles and scenes.
        pictures: pictures of each domain that CLIP names and the autoencoder reconstructs.
        generated: images drawn from prompts, over all domains, styles and scenes.
        steps, guidance: of the sampler (DPM-Solver++).
    """

    identities: Annotated[int, Field(ge=2)] = 60
    images_per_identity: Annotated[int, Field(ge=4)] = 8
    pictures: Count = 200
    generated: Count = 240
    steps: Count = 20
    guidance: Positive = 3.0


class StackConfig(Config):
    """The whole of it.

    Attributes:
        base: diffusers pipeline folder with the configurations, tokenizer and scheduler.
        clip_base: open_clip folder with its configuration and tokenizer.
        max_megabytes: of the stack, ``encoders_max_megabytes``: of all encoders.
        encoders: what is pre-trained on the finished stack: the name it ships by and the recipe it follows.
    """

    base: str = "bundled:tiny"
    clip_base: str = "bundled:clip_tiny"
    max_megabytes: Positive = 24.0
    encoders_max_megabytes: Positive = 16.0
    pictures: PicturesConfig
    vae: VaeConfig
    clip: ClipTrainingConfig
    identity: IdentityTrainingConfig
    diffusion: DiffusionConfig
    encoders: dict[str, str] = Field(default_factory=dict)
    evaluation: StackEvaluationConfig = StackEvaluationConfig()
    run: RunConfig = RunConfig()
