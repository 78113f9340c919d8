"""The figures of the model card, all on the test split, through the code that users load the stack with."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import islice, product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from e4t_core.backbones import BackboneConfig, ClipConfig, ClipModel, load_autoencoder, load_backbone, load_clip
from e4t_core.errors import UsageError
from e4t_core.metrics._onnx import Embedder
from e4t_core.sampling import SamplerConfig, TextConditioning, sample
from jobs._tiny_stack.figures import accuracy, psnr, verification_auc
from jobs._tiny_stack.files import BACKBONE, CLIP, NETWORKS, StackFolder, bundled
from jobs._tiny_stack.grids import save_grid
from jobs._tiny_stack.naming import name_all
from jobs._tiny_stack.order import export_unfinished, progress
from jobs._tiny_stack.pictures import draw, spots
from jobs._tiny_stack.pool import label_of, rows_of
from jobs._tiny_stack.words import Label
from jobs._tiny_stack.work import Work
from pipelines.sources.tiny_world import SCENE_WORDS, STYLE_WORDS, template

FIGURES = "figures.json"
_SPLIT = "test"
_DRAWN_TOGETHER = 20


def evaluate(work: Work) -> dict[str, Any]:
    """Measure this run's stack, or the package's if this run has none; also writes ``evaluation/``.

    Raises:
        UsageError: neither has weights.
    """
    torch.set_num_threads(work.stack.run.threads)
    export_unfinished(work)
    stack = work.trained if any(map(work.trained.has, NETWORKS)) else bundled()
    if not any(map(stack.has, NETWORKS)):
        raise UsageError("neither --out nor the package has trained weights: run train-tiny without --evaluate first")
    return measure(work, stack)


def figures_of(work: Work, stack: StackFolder) -> dict[str, Any]:
    """The figures of these very weights, measured unless this run already did."""
    path = work.out / "evaluation" / FIGURES
    known = json.loads(path.read_text()) if path.exists() else {"weights": {}}
    found = known if known["weights"] == _hashes(stack) else measure(work, stack)
    return dict(found["figures"])


def measure(work: Work, stack: StackFolder) -> dict[str, Any]:
    """Every figure whose networks ``stack`` has."""
    parts = [name for name in NETWORKS if stack.has(name)]
    work.job.say(f"evaluate: {', '.join(parts)} of {stack.root}")
    found: dict[str, Any] = {}
    for name, measured in _MEASURES.items():
        if set(_NEEDS[name]) <= set(parts):
            found |= measured(work, stack)
    result = {"stack": str(stack.root), "weights": _hashes(stack), "trained": _trained(work, stack), "figures": found}
    folder = work.out / "evaluation"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FIGURES).write_text(json.dumps(result, indent=1) + "\n")
    for name, value in found.items():
        work.job.say(f"{name:<28} {value}")
    return result


def _hashes(stack: StackFolder) -> dict[str, str]:
    return {network: found for part in NETWORKS for network, found in stack.hashes(part).items()}


def _trained(work: Work, stack: StackFolder) -> dict[str, Any]:
    if stack.root != work.trained.root:
        return {}
    return {name: {"step": p["step"], "steps": p["steps"]} for name, p in progress(work).items()}


def unseen(work: Work, domain: str, identities: int, each: int) -> tuple[Tensor, list[Label]]:
    """(N, 3, H, W) images in [-1, 1] of unseen identities, and their labels."""
    pictures = work.stack.pictures
    known = {name: d for name, d in pictures.domains.items() if d is not None}
    drawn = [draw(spot) for spot in spots(domain, pictures, identities, each, _SPLIT)]
    pixels = torch.from_numpy(np.stack([rgb for rgb, _ in drawn]))
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1, [label_of(label, known) for _, label in drawn]


def _mixed(work: Work) -> tuple[Tensor, list[Label]]:
    """``evaluation.pictures`` of every domain, each of another identity."""
    images, labels = [], []
    for domain in (name for name, d in work.stack.pictures.domains.items() if d is not None):
        found = unseen(work, domain, work.stack.evaluation.pictures, 1)
        images.append(found[0])
        labels += found[1]
    return torch.cat(images), labels


# --- the measures


def _identity(work: Work, stack: StackFolder) -> dict[str, Any]:
    config = work.stack.evaluation
    images, labels = unseen(work, work.stack.identity.domain, config.identities, config.images_per_identity)
    embedder = Embedder(str(stack.weights("identity")), "nchw", "cpu")
    embedded = torch.nn.functional.normalize(embedder(images), dim=1).numpy()
    photos = rows_of(labels, style="photo")
    who, styles = [label.identity for label in labels], [label.style for label in labels]
    within = verification_auc(embedded[photos], [who[i] for i in photos], ["photo"] * len(photos), across=False)
    return {
        "identity_auc_photos": round(within, 4),
        "identity_auc_across_styles": round(verification_auc(embedded, who, styles, across=True), 4),
    }


def _naming(work: Work, stack: StackFolder) -> dict[str, Any]:
    images, labels = _mixed(work)
    styles, scenes = name_all(_clip(stack), images, [label.class_words[0] for label in labels])
    right = {"style": [label.style for label in labels], "scene": [label.scene for label in labels]}
    out: dict[str, Any] = {}
    for what, named in (("style", styles), ("scene", scenes)):
        out[f"clip_{what}"] = round(accuracy(named, right[what]), 4)
        for domain in dict.fromkeys(label.domain for label in labels):
            rows = rows_of(labels, domain=domain)
            out[f"clip_{what}_{domain}"] = round(accuracy([named[i] for i in rows], [right[what][i] for i in rows]), 4)
    return out


def _reconstruction(work: Work, stack: StackFolder) -> dict[str, Any]:
    images, labels = _mixed(work)
    autoencoder = load_autoencoder(_backbone_config(work, stack))
    again = autoencoder.to_image(autoencoder.to_latent(autoencoder.to_moments(images)))
    x, y = ((t.numpy() + 1) / 2 for t in (images, again))
    out: dict[str, Any] = {"vae_l1": round(float(np.abs(x - y).mean()), 5), "vae_psnr": round(psnr(x, y), 2)}
    for style in STYLE_WORDS:
        rows = rows_of(labels, style=style)
        if rows:
            out[f"vae_l1_{style}"] = round(float(np.abs(x[rows] - y[rows]).mean()), 5)
            out[f"vae_psnr_{style}"] = round(psnr(x[rows], y[rows]), 2)
    shown = [i for style in STYLE_WORDS for i in rows_of(labels, style=style)[:: max(1, len(labels) // 48)][:12]]
    pairs = torch.cat(
        [torch.cat([images[shown[i : i + 12]], again[shown[i : i + 12]]]) for i in range(0, len(shown), 12)]
    )
    save_grid(work.out / "evaluation" / "reconstructions.png", pairs, 12)
    return out


def _generation(work: Work, stack: StackFolder) -> dict[str, Any]:
    """Images drawn from sentences over all domains, styles and scenes, named by CLIP."""
    config, wanted = work.stack.evaluation, _prompts(work)
    backbone = load_backbone(_backbone_config(work, stack))
    sampler = SamplerConfig(steps=config.steps, guidance=config.guidance, scheduler="dpmsolver++")
    images = []
    with work.job.progress(len(wanted), "drawing", "image") as bar:
        for start in range(0, len(wanted), _DRAWN_TOGETHER):
            part = wanted[start : start + _DRAWN_TOGETHER]
            prompts = [template(style, scene).format(word) for _, word, style, scene in part]
            seeds = list(range(start, start + len(part)))
            images.append(sample(backbone, TextConditioning(backbone, prompts), sampler, seeds))
            bar.update(len(part))
    drawn = torch.cat(images)
    save_grid(work.out / "evaluation" / "generated.png", drawn, len(STYLE_WORDS) * len(SCENE_WORDS))
    styles, scenes = name_all(_clip(stack), drawn, [word for _, word, _, _ in wanted])
    out: dict[str, Any] = {}
    for what, named, column in (("style", styles, 2), ("scene", scenes, 3)):
        out[f"generated_{what}"] = round(accuracy(named, [w[column] for w in wanted]), 4)
        for domain in dict.fromkeys(w[0] for w in wanted):
            rows = [i for i, w in enumerate(wanted) if w[0] == domain]
            out[f"generated_{what}_{domain}"] = round(
                accuracy([named[i] for i in rows], [wanted[i][column] for i in rows]), 4
            )
    return out


def _prompts(work: Work) -> list[tuple[str, str, str, str]]:
    """(domain, class word, style, scene), whole rows of all styles and scenes; class words come from the test split."""
    pairs = list(product(STYLE_WORDS, SCENE_WORDS))
    domains = [name for name, d in work.stack.pictures.domains.items() if d is not None]
    rounds = max(1, math.ceil(work.stack.evaluation.generated / (len(pairs) * len(domains))))
    out = []
    for domain in domains:
        known = work.stack.pictures.domains[domain]
        assert known is not None
        subjects = [
            draw(s)[1] for s in islice(spots(domain, work.stack.pictures, len(pairs) * rounds, 1, _SPLIT), None)
        ]
        words = [label_of(s, {domain: known}).class_words[0] for s in subjects]
        out += [(domain, words[i], *pairs[i % len(pairs)]) for i in range(len(pairs) * rounds)]
    return out


def _clip(stack: StackFolder) -> ClipModel:
    return load_clip(ClipConfig(path=str(stack.root / CLIP)))


def _backbone_config(work: Work, stack: StackFolder) -> BackboneConfig:
    return BackboneConfig(path=str(stack.root / BACKBONE), resolution=work.stack.pictures.size)


_MEASURES: dict[str, Callable[[Work, StackFolder], dict[str, Any]]] = {
    "identity": _identity,
    "naming": _naming,
    "reconstruction": _reconstruction,
    "generation": _generation,
}
_NEEDS = {
    "identity": ("identity",),
    "naming": ("clip",),
    "reconstruction": ("vae",),
    "generation": ("vae", "diffusion", "clip"),
}
