"""A word for each identity, learned on the frozen model, of many identities at once."""

from __future__ import annotations

from collections.abc import Sequence

from e4t_core.adapters.concurrent import tune
from e4t_core.adapters.subjects import Tuned
from e4t_core.adapters.tunable import TokenWeights
from e4t_core.backbones.base import Backbone
from e4t_core.memory import Fitting
from e4t_core.methods._adapters import networks, total_bytes
from e4t_core.methods._tuning import subject_of, tuning_facts
from e4t_core.methods.base import Adapter, Identity
from e4t_core.methods.textual_inversion.config import TextualInversionConfig

NAME, TOKEN = "textual_inversion", "token"


def personalize_all(
    config: TextualInversionConfig, backbone: Backbone, identities: Sequence[Identity], fitting: Fitting
) -> list[Adapter]:
    """An adapter for each identity, in order: ``token`` (D,), or (V, D). One whose tuning diverged says so in
    ``meta["failed"]``."""
    token = TokenWeights(backbone, config.domain_word, config.vectors)
    prompts = [template.replace("{}", word(backbone, config.vectors)) for template in config.templates]
    subjects = (subject_of(one, backbone, prompts, config.personalize.mask) for one in identities)
    tuned = {one.id: one for one in tune(backbone, token, subjects, config.personalize, fitting)}
    return [_adapter(config, backbone, one, tuned[one.id]) for one in identities]


def word(backbone: Backbone, vectors: int) -> str:
    """What a prompt has where the concept is: the placeholder, once for each vector."""
    return " ".join([backbone.placeholder] * vectors)


def _adapter(config: TextualInversionConfig, backbone: Backbone, identity: Identity, tuned: Tuned) -> Adapter:
    meta = {
        **networks(backbone),
        "vectors": config.vectors,
        "word": config.domain_word,
        "images": len(identity.images_N3HW),
        "masked": config.personalize.mask and identity.masks_N1HW is not None,
        **tuning_facts(tuned, config.personalize),
        "seconds": tuned.seconds,
        "bytes": total_bytes(tuned.tensors),
    }
    return Adapter(NAME, identity.id, tuned.tensors, meta)
