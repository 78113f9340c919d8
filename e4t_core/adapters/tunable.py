"""What an identity may have of its own on a frozen backbone: LiDB weights, LoRA of any rank, a token's embedding.

All numbers of an identity lie in one row of a (K, P) matrix, so that an optimizer, a clip and a check of K identities
are each a few operations, however many layers there are.
"""

from __future__ import annotations

import contextlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from e4t_core.adapters import streams
from e4t_core.adapters.lidb import Space, lidb_projections
from e4t_core.adapters.low_rank import LowRank, low_rank_in_runs, low_rank_per_sample
from e4t_core.backbones.base import Backbone, Projection
from e4t_core.errors import CheckpointMismatch

Shapes = Mapping[str, tuple[int, ...]]


class Tunable(ABC):
    """The weights that each identity has of its own.

    Attributes:
        shapes: of one identity's trained tensors, by name, in the order of the flat form.
        constant_shapes: of frozen tensors that an identity may bring; all or none of them.
        in_text: whether they act in the text encoder, so that prompts must be encoded anew in each step.
    """

    shapes: Shapes
    constant_shapes: Shapes = {}  # noqa: RUF012 -- a read-only default
    in_text: bool

    @property
    def numbers(self) -> int:
        """P: trained numbers of one identity."""
        return sum(self._sizes)

    @cached_property
    def _sizes(self) -> list[int]:
        return [math.prod(shape) for shape in self.shapes.values()]

    @abstractmethod
    def initial(self, seeds: Sequence[int]) -> dict[str, Tensor]:
        """(K, *shape) float32 on the CPU to start from, for K identities with these seeds. Nothing changes with
        them: the backbone computes what it does without."""

    @abstractmethod
    def on(
        self, flat_KP: Tensor, constants: Mapping[str, Tensor], which_B: Tensor | None = None
    ) -> contextlib.AbstractContextManager[None]:
        """Inside, the backbone's layers compute with the identities' weights; gradients reach ``flat_KP``.

        Args:
            flat_KP: see :meth:`flat`.
            constants: (K, *shape) for each of :attr:`constant_shapes`, or empty.
            which_B: (B,) the identity of each sample; a batch of ``n * B`` repeats it in order. None: every batch has
                as many samples of each of the K identities, those of the first identity first.
        """

    def spliced(self, flat_KP: Tensor) -> Tensor | None:
        """(K, D) or (K, V, D) embeddings in place of the placeholder's, for :meth:`Backbone.encode_text`; None: no text
        has any."""
        return None

    def companions(self, constants: Mapping[str, Tensor]) -> Tensor | None:
        """(K, D) embeddings in place of the placeholder's in a second text of every prompt, which takes no gradients;
        :meth:`Backbone.denoise` gets its (B, T, D) states behind those of the first. None: there is no second."""
        return None

    def flat(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """(K, P) of tensors (K, *shape).

        Raises:
            CheckpointMismatch: names or shapes are not those of :attr:`shapes`.
        """
        check_shapes(tensors, self.shapes, "the weights to start from")
        return torch.cat([tensors[name].flatten(1) for name in self.shapes], dim=1)

    def unflat(self, flat_KP: Tensor) -> dict[str, Tensor]:
        """The inverse of :meth:`flat`: views."""
        parts = flat_KP.split(self._sizes, dim=1)
        return {name: part.unflatten(1, shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}


def check_shapes(tensors: Mapping[str, Tensor], shapes: Shapes, what: str) -> None:
    """Whether there is a (K, *shape) tensor for every name, and no other.

    Raises:
        CheckpointMismatch: names the first that is wrong.
    """
    for name in [*shapes, *tensors]:
        there = tuple(tensors[name].shape[1:]) if name in tensors else "missing"
        here = shapes.get(name, "unknown")
        if there != here:
            raise CheckpointMismatch(f"{what}: {name} is {there} there and {here} here")


class LowRankTunable(Tunable):
    """Weights that are low-rank changes of linear layers.

    Attributes:
        projections: the layers, by name.
    """

    projections: Mapping[str, Projection]
    parts: int = 1
    """Every batch is so many equal parts, of which the first computes with the weights."""

    @abstractmethod
    def low_rank(
        self, flat_KP: Tensor, constants: Mapping[str, Tensor], dtype: torch.dtype | None = None
    ) -> dict[str, LowRank]:
        """Layer -> the exact change of K identities, trained and constant part together; differentiable.

        Args:
            flat_KP: see :meth:`flat`.
            constants: see :meth:`on`.
            dtype: of the factors; None takes ``flat_KP``'s.
        """

    @contextlib.contextmanager
    def on(self, flat_KP: Tensor, constants: Mapping[str, Tensor], which_B: Tensor | None = None) -> Iterator[None]:
        """See :meth:`Tunable.on`."""
        weights = self.low_rank(flat_KP, constants, self._compute_type(flat_KP.device.type))
        if which_B is None:
            inside = low_rank_in_runs(self.projections, weights, self.parts)
        else:
            inside = low_rank_per_sample(self.projections, weights, which_B, self.parts)
        with inside:
            yield

    @property
    def in_text(self) -> bool:  # type: ignore[override]
        """Whether any of the layers is the text encoder's."""
        return any(p.network == "text_encoder" for p in self.projections.values())

    def _compute_type(self, device: str) -> torch.dtype:
        """What the layers' outputs will be: factors are turned into it once for all layers, not once in each."""
        if torch.is_autocast_enabled(device):
            return torch.get_autocast_dtype(device)
        return next(iter(self.projections.values())).module.weight.dtype


class LiDBWeights(LowRankTunable):
    """An identity's LiDB weights (HyperDreamBooth section 4.1): ``<layer>.A_train`` (a,) and ``<layer>.B_train`` (b,).

    Everybody starts from the space's one initial A_train with B_train = 0, whatever the seed.
    """

    def __init__(self, backbone: Backbone, space: Space) -> None:
        self.space = space
        self.projections = lidb_projections(backbone)
        self.shapes = {name: tuple(t.shape[1:]) for name, t in space.initial(1).items()}

    def initial(self, seeds: Sequence[int]) -> dict[str, Tensor]:
        """See :meth:`Space.initial`."""
        return self.space.initial(len(seeds))

    def low_rank(
        self, flat_KP: Tensor, constants: Mapping[str, Tensor], dtype: torch.dtype | None = None
    ) -> dict[str, LowRank]:
        """Rank 1, see :meth:`Space.expand`."""
        return self.space.expand(self.space.unflat(flat_KP), dtype)


class LoRAWeights(LowRankTunable):
    """LoRA (Hu et al. 2021): ``dW = alpha / rank * up @ down``.

    Trained are ``<layer>.up`` (M, rank) and ``<layer>.down`` (rank, N). ``up`` starts at 0, ``down`` uniform in
    +-1/sqrt(N) (as in peft) from the identity's seed.

    Args:
        projections: layers by name.
        rank: of each layer's change.
        alpha: scale times rank; None takes the rank, so that the scale is 1.
        base_rank: rank of a frozen change that identities bring as constants ``<layer>.up`` (M, base_rank) and
            ``<layer>.down`` (base_rank, N); it is added to the trained one, not scaled, and the whole has the exact
            rank ``base_rank + rank``. 0: there is none.
        parts: see :attr:`LowRankTunable.parts`.
    """

    def __init__(
        self,
        projections: Mapping[str, Projection],
        rank: int,
        alpha: float | None = None,
        base_rank: int = 0,
        parts: int = 1,
    ) -> None:
        self.projections, self.rank, self.parts = dict(projections), rank, parts
        self.scale = 1.0 if alpha is None else alpha / rank
        self.shapes = self._layer_shapes(rank)
        self.constant_shapes = self._layer_shapes(base_rank) if base_rank else {}

    def _layer_shapes(self, rank: int) -> dict[str, tuple[int, ...]]:
        found: dict[str, tuple[int, ...]] = {}
        for name, projection in self.projections.items():
            found[f"{name}.up"] = (projection.module.out_features, rank)
            found[f"{name}.down"] = (rank, projection.module.in_features)
        return found

    def initial(self, seeds: Sequence[int]) -> dict[str, Tensor]:
        """``up`` 0, ``down`` from the seeds."""
        keys_K, zeros_K = streams.as_seeds(seeds), torch.zeros(len(seeds), dtype=torch.int64)
        drawn_KP = streams.uniforms(keys_K, zeros_K, streams.INITIAL, (self.numbers,)).float() * 2 - 1
        start = self.unflat(drawn_KP)
        for name, tensor in start.items():
            tensor.mul_(0.0 if name.endswith(".up") else tensor.shape[-1] ** -0.5)
        return start

    def low_rank(
        self, flat_KP: Tensor, constants: Mapping[str, Tensor], dtype: torch.dtype | None = None
    ) -> dict[str, LowRank]:
        """Rank ``rank``, or ``base_rank + rank`` with the constant part first."""
        parts = self.unflat(
            (flat_KP if self.scale == 1 else flat_KP * self._scales(flat_KP)).to(dtype or flat_KP.dtype)
        )
        trained = {name: LowRank(parts[f"{name}.up"], parts[f"{name}.down"]) for name in self.projections}
        if not constants:
            return trained
        fixed = {name: t.to(dtype or flat_KP.dtype) for name, t in constants.items()}
        return {n: LowRank(fixed[f"{n}.up"], fixed[f"{n}.down"]) + one for n, one in trained.items()}

    def _scales(self, like: Tensor) -> Tensor:
        """(P,) the scale where ``up`` is, 1 where ``down`` is."""
        ones = like.new_ones(1, self.numbers)
        for name, part in self.unflat(ones).items():
            if name.endswith(".up"):
                part.fill_(self.scale)
        return ones[0]


class TokenWeights(Tunable):
    """Textual Inversion (Gal et al. 2022): the input embedding of the placeholder, ``token`` (D,), or (V, D) of several
    placeholders in a row.

    Args:
        backbone: whose text encoder reads it.
        word: whose embedding it starts from, each of them.
        vectors: V.
    """

    in_text = True

    def __init__(self, backbone: Backbone, word: str, vectors: int = 1) -> None:
        start_D = backbone.token_embedding(word).detach().float()
        self.start_D = start_D if start_D.is_meta else start_D.cpu()
        width = len(self.start_D)
        self.shapes = {"token": (width,) if vectors == 1 else (vectors, width)}

    def initial(self, seeds: Sequence[int]) -> dict[str, Tensor]:
        """The word's embedding for everybody."""
        return {"token": self.start_D.expand(len(seeds), *self.shapes["token"]).clone()}

    def on(
        self, flat_KP: Tensor, constants: Mapping[str, Tensor], which_B: Tensor | None = None
    ) -> contextlib.AbstractContextManager[None]:
        """Nothing to do: no layer computes otherwise."""
        return contextlib.nullcontext()

    def spliced(self, flat_KP: Tensor) -> Tensor:
        """(K, D) or (K, V, D)."""
        return flat_KP.unflatten(1, self.shapes["token"])
