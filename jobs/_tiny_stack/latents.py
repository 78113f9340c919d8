"""Every picture's latents, encoded once: what the diffusion model is trained on."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from e4t_core.backbones import BackboneConfig, load_autoencoder
from e4t_core.backbones.autoencoder import Autoencoder
from jobs._tiny_stack.files import BACKBONE
from jobs._tiny_stack.pool import Rows
from jobs._tiny_stack.work import Work

_SLICE = 128


class Latents:
    """The cache in ``OUT/latents``: moments (N, 2C, h, w) in half precision."""

    def __init__(self, folder: Path) -> None:
        self._moments = np.load(folder / "moments.npy", mmap_mode="r")

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, 2C, h, w)."""
        return tuple(self._moments.shape)

    def moments(self, rows: Rows, device: torch.device) -> Tensor:
        """(B, 2C, h, w) posterior mean and log variance, unscaled."""
        return torch.from_numpy(self._moments[rows]).to(device).float()


def trained_autoencoder(work: Work, device: torch.device) -> Autoencoder:
    """The autoencoder as users will load it."""
    path = str(work.trained.root / BACKBONE)
    return load_autoencoder(BackboneConfig(path=path, resolution=work.stack.pictures.size), device)


def encode_pool(work: Work) -> Latents:
    """Make the cache hold the latents of these pictures under this autoencoder; goes on where it was stopped."""
    folder = work.out / "latents"
    folder.mkdir(parents=True, exist_ok=True)
    made = {"vae": work.trained.hash("vae"), "pictures": work.pool.fingerprint}
    about = folder / "about.json"
    known = json.loads(about.read_text()) if about.exists() else {}
    begin = known["encoded"] if {k: known.get(k) for k in made} == made else 0
    if begin < len(work.pool):
        _encode(work, folder, begin, made)
    return Latents(folder)


def _encode(work: Work, folder: Path, begin: int, made: dict[str, str]) -> None:
    autoencoder, count = trained_autoencoder(work, work.device), len(work.pool)
    moments = _array(folder / "moments.npy", begin, autoencoder, work)
    with work.job.progress(count, "latents", "picture") as bar:
        bar.update(begin)
        for start in range(begin, count, _SLICE):
            rows = np.arange(start, min(start + _SLICE, count))
            images = work.pool.images(rows, work.device)
            with torch.autocast(work.device.type, dtype=torch.bfloat16, enabled=work.stack.vae.precision == "bf16"):
                found = autoencoder.to_moments(images)
            moments[rows] = found.cpu().numpy().astype(np.float16)
            bar.update(len(rows))
            if start // _SLICE % 32 == 31:
                _note(folder, moments, {**made, "encoded": int(rows[-1]) + 1})
        _note(folder, moments, {**made, "encoded": count})


def _array(path: Path, begin: int, autoencoder: Autoencoder, work: Work) -> np.memmap:
    if begin:
        return np.load(path, mmap_mode="r+")
    side = work.stack.pictures.size // autoencoder.factor
    shape = (len(work.pool), 2 * autoencoder.channels, side, side)
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)


def _note(folder: Path, moments: np.memmap, facts: dict[str, object]) -> None:
    """The pixels first: what ``encoded`` says must be there."""
    moments.flush()
    temporary = folder / "about.partial"
    temporary.write_text(json.dumps(facts) + "\n")
    os.replace(temporary, folder / "about.json")
