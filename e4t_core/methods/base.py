"""The method contract. Jobs drive any method through it and know no method by name."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from e4t_core.adapters.low_rank import LowRank
from e4t_core.backbones.base import Backbone
from e4t_core.config import Config
from e4t_core.errors import UsageError
from e4t_core.record import Record
from e4t_core.registry import Registry


class MethodConfig(Config):
    """Fields every method has.

    Attributes:
        name: the method's file or folder name.
        domain_word: coarse descriptor of the domain (``face``, ``cat``, ``art``).
        templates: prompts with one ``{}`` for the concept.
    """

    name: str
    domain_word: str
    templates: tuple[str, ...]


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that pre-training gives one learning rate: ``rate`` times that of the recipe's section ``train``."""

    parameters: Sequence[nn.Parameter]
    rate: float = 1.0


@dataclass(frozen=True)
class References:
    """What pre-training reads of another image of each sample's identity. Which one is drawn by the recipe's seed and
    the sample's place in the order; a sample without another is its own.

    Attributes:
        columns: shard columns; a batch has their entries under names that begin with ``reference_``.
        nearest: of a sample without identity label, the one whose face embedding (column ``identity``) is nearest is of
            the same identity if their cosine is at least this; None leaves such samples to themselves.
    """

    columns: tuple[str, ...]
    nearest: float | None = None


@dataclass
class Losses:
    """Named scalar terms and their weighted sum. Each is a mean over samples of a per-sample value."""

    total: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Identity:
    """One concept to learn.

    Attributes:
        id: its name.
        images_N3HW: its images in [-1, 1].
        masks_N1HW: foreground in [0, 1], or None.
        clip_cls_NLD: [CLS] tokens of the configured CLIP layers.
        clip_tokens_NTD: patch tokens of the last CLIP layer, or None where they are not stored.
        seed: the stream all of its noise comes from, so that company in a batch changes nothing.
    """

    id: str
    images_N3HW: Tensor
    clip_cls_NLD: Tensor
    masks_N1HW: Tensor | None = None
    seed: int = 0
    clip_tokens_NTD: Tensor | None = None


@dataclass
class Adapter:
    """A personalization: everything beyond the backbone that generation needs.

    Attributes:
        method: the method's name.
        identity: the identity's id.
        tensors: named tensors, saved as safetensors.
        meta: JSON facts (steps, seconds, final losses, switches).
    """

    method: str
    identity: str
    tensors: dict[str, Tensor]
    meta: dict[str, Any] = field(default_factory=dict)


class Conditioning:
    """How an adapter conditions the one sampler. The default conditions on text alone.

    A method overrides :meth:`text` to predict embeddings per step, :meth:`denoise` to change the network's pass,
    :meth:`applied` to put weights on the backbone for the time of sampling.
    """

    def __init__(self, backbone: Backbone, prompts: Sequence[str]) -> None:
        self.backbone = backbone
        self.prompts = list(prompts)
        self.trace: dict[str, list[float]] = {}
        """Per-step figures worth plotting (E4T fig. 7 records ``embedding_norm``)."""

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Weights are on the backbone inside, and off again bit for bit outside."""
        yield

    @abstractmethod
    def text(self, x_t_BChw: Tensor, t_B: Tensor, step: int) -> Tensor:
        """(B, T, D) text states for denoising step ``step`` (0 is the noisiest)."""

    def negative(self, prompt: str) -> Tensor:
        """(1, T, D), or one for each image, text states that guidance leads away from; asked for inside
        :meth:`applied`, so that a tuned text encoder reads both sides."""
        return self.backbone.encode_text(self.backbone.tokenize([prompt]))

    def denoise(self, x_t_BChw: Tensor, t_B: Tensor, text_BTD: Tensor) -> Tensor:
        """The network's prediction under these text states; called with a doubled batch for guidance."""
        return self.backbone.denoise(x_t_BChw, t_B, text_BTD)

    def for_images(self, rows: Tensor, images: int) -> Tensor:
        """(images, ...) one row for each image, from (1, ...) or (images, ...) rows of the prompts.

        Raises:
            UsageError: another number of prompts.
        """
        if len(rows) not in (1, images):
            raise UsageError(f"{len(rows)} prompts for {images} images: give one prompt, or one per image")
        return rows.expand(images, *rows.shape[1:])


class ObjectConditioning(Conditioning):
    """With an object beside the text, which guidance weighs by itself (``sampler.object_guidance``)."""

    @abstractmethod
    def denoise_seeing(self, x_t_BChw: Tensor, t_B: Tensor, text_BTD: Tensor, seeing_B: Tensor) -> Tensor:
        """The network's prediction where only the samples that are True in ``seeing_B``, (B,), are given the object."""

    def denoise(self, x_t_BChw: Tensor, t_B: Tensor, text_BTD: Tensor) -> Tensor:
        """Every sample sees the object."""
        return self.denoise_seeing(x_t_BChw, t_B, text_BTD, torch.ones_like(t_B, dtype=torch.bool))


class Method(ABC):
    """A personalization method. The constructor stores its configuration."""

    name: ClassVar[str]
    Config: ClassVar[type[MethodConfig]]
    columns: tuple[str, ...]
    """Shard columns that pre-training reads; a constructor may extend its class's by configuration."""
    references: References | None = None
    """What pre-training reads of another image of each sample's identity; a constructor may set it."""
    pretrains: ClassVar[bool] = True
    """False for methods that start from the backbone alone: they have no ``pretrain`` job and no checkpoint."""
    several_images: ClassVar[bool] = False
    """Whether :meth:`personalize` learns an identity from all the images that it is given. Other methods learn from
    one, and ``personalize.images`` may not be more."""
    tunes: ClassVar[bool] = True
    """False for methods whose personalization is a prediction, without any optimizer step."""
    draws_together: ClassVar[bool] = False
    """Whether one batch may hold images of several identities: :meth:`conditioning_together` is there."""
    formats: ClassVar[tuple[str, ...]] = ("native",)
    """What :meth:`export` writes. LoRA files for other programs come from :meth:`low_rank_layers` instead."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def build(self, backbone: Backbone, clip_dims: tuple[int, int]) -> nn.Module:
        """What is trained, and nothing else. ``clip_dims`` is (layers L, width D) of the CLIP features."""

    @abstractmethod
    def pretrain_loss(
        self, module: nn.Module, backbone: Backbone, batch: Mapping[str, Any], rng: torch.Generator
    ) -> Losses:
        """One batch of the loader -> losses. ``rng`` (on the batch's device) is the only source of randomness."""

    def parameter_groups(self, module: nn.Module) -> list[ParameterGroup]:
        """Everything that is trained, each parameter once, with learning rates relative to ``train``'s."""
        return [ParameterGroup([p for p in module.parameters() if p.requires_grad])]

    @contextlib.contextmanager
    def pretraining(self, module: nn.Module, backbone: Backbone) -> Iterator[None]:
        """Whatever must be on the backbone while pre-training; off again bit for bit outside."""
        yield

    @contextlib.contextmanager
    def step(self, module: nn.Module) -> Iterator[None]:
        """Surrounds one optimizer step's forward and backward passes (caches of derived weights live here)."""
        yield

    @abstractmethod
    def personalize(self, module: nn.Module, backbone: Backbone, identities: Sequence[Identity]) -> list[Adapter]:
        """Adapters for a batch of identities, in order. Backbone and module are bit-identical afterwards.

        An identity that failed alone among many has an adapter whose ``meta["failed"]`` says why, and which nobody
        uses; an exception is for what concerns them all.
        """

    @abstractmethod
    def conditioning(
        self, module: nn.Module, backbone: Backbone, adapter: Adapter, identity: Identity, prompts: Sequence[str]
    ) -> Conditioning:
        """Per-step callback for the sampler; ``prompts`` contain the backbone's placeholder."""

    def conditioning_together(
        self,
        module: nn.Module,
        backbone: Backbone,
        adapters: Sequence[Adapter],
        identities: Sequence[Identity],
        prompts: Sequence[Sequence[str]],
    ) -> Conditioning:
        """One conditioning for images of several identities, where :attr:`draws_together`: each image is what it would
        be alone.

        Args:
            prompts: of each identity, one per image; the images of the first identity come first.
        """
        raise NotImplementedError(f"method '{self.name}' draws one identity at a time")

    @abstractmethod
    def export(self, adapter: Adapter, uri: str, fmt: str, record: Record, backbone: Backbone) -> Record:
        """Write one adapter under ``uri`` as ``fmt``, one of :attr:`formats`; ``backbone`` may be on ``meta``.

        Raises:
            UsageError: no such format (it names those there are), or it cannot hold this adapter.
        """

    def low_rank_layers(self, adapter: Adapter, backbone: Backbone) -> Mapping[str, LowRank]:
        """The adapter as one exact low-rank dW a layer, which is what other programs' LoRA files can hold.

        Args:
            adapter: what :meth:`personalize` gave.
            backbone: for the names and sizes of its layers alone; it may be on ``meta``.

        Returns:
            Stable layer name -> its weights with K = 1; one rank in all layers.

        Raises:
            UsageError: the method changes something else than linear layers by a sum; names the methods that do not.
        """
        methods = Registry("method", "e4t_core.methods", Method)
        able = [name for name in methods.names() if methods.get(name).low_rank_layers is not Method.low_rank_layers]
        raise UsageError(
            f"the adapters of method '{self.name}' are not low-rank, so no LoRA file can hold them; methods whose "
            f"adapters are: {', '.join(able) or 'none'}"
        )


class BackboneMethod(Method):
    """A method that starts from the backbone alone: there is nothing to pre-train, and no checkpoint."""

    columns: tuple[str, ...] = ()
    pretrains: ClassVar[bool] = False

    def build(self, backbone: Backbone, clip_dims: tuple[int, int]) -> nn.Module:
        """A module without parameters."""
        return nn.Module()

    def pretrain_loss(
        self, module: nn.Module, backbone: Backbone, batch: Mapping[str, Any], rng: torch.Generator
    ) -> Losses:
        """There is none.

        Raises:
            UsageError: always.
        """
        raise UsageError(f"method '{self.name}' needs no pre-training; run personalize without --checkpoint")
