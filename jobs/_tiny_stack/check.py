"""What can be known to be wrong before hours are spent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from e4t_core.errors import UsageError, nearest
from jobs._tiny_stack.config import StackConfig
from jobs._tiny_stack.files import BACKBONE, CLIP, CONFIGS, local, overridden
from jobs._tiny_stack.pictures import spots


def check(stack: StackConfig) -> None:
    """Look through the section.

    Raises:
        UsageError: a domain or a configuration's key that does not exist, or a base that is not there.
    """
    known = {name for name, domain in stack.pictures.domains.items() if domain is not None}
    for name in known:
        next(spots(name, stack.pictures, 1, 1, "train"))
    if stack.identity.domain not in known:
        where = f"stack.identity.domain: no pictures of '{stack.identity.domain}'"
        raise UsageError(f"{where}{nearest(stack.identity.domain, known)}")
    overridden(_config(stack, "vae"), stack.vae.model, "stack.vae.model")
    overridden(_config(stack, "clip")["model_cfg"], stack.clip.model, "stack.clip.model")
    overridden(_config(stack, "unet"), stack.diffusion.model, "stack.diffusion.model")
    overridden(_config(stack, "text_encoder"), stack.diffusion.text_model, "stack.diffusion.text_model")


def _config(stack: StackConfig, network: str) -> dict[str, Any]:
    """A network's configuration in the base folder."""
    top, _, rest = CONFIGS[network].partition("/")
    path: Path = local({BACKBONE: stack.base, CLIP: stack.clip_base}[top]) / rest
    if not path.is_file():
        raise UsageError(f"stack.base: {path} is not there; a base has the configurations of every network")
    return dict(json.loads(path.read_text()))
