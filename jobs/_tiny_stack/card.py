"""The model card, and the record of every part's training that it is written from.

Parts can be trained in runs of their own, so the record lies beside the weights: installing one part leaves what is
known of the others.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from jobs._tiny_stack.encoders import encoder_records
from jobs._tiny_stack.files import BACKBONE, TRAINING, WEIGHTS, StackFolder
from jobs._tiny_stack.order import PARTS, progress
from jobs._tiny_stack.work import Work

CARD = f"{BACKBONE}/README.md"


def write_record(work: Work, stack: StackFolder, target: StackFolder) -> None:
    """Put what this run knows of its parts into the target's record; parts it did not train keep theirs."""
    known = target.record()
    for name, made in progress(work).items():
        told = made["record"] if "taken" in made else _described(stack, name, made)
        if told is not None:
            known[name] = told
    (target.root / TRAINING).write_text(json.dumps(known, indent=1) + "\n")


def _described(stack: StackFolder, name: str, made: dict[str, Any]) -> dict[str, Any]:
    settings = made["settings"]
    last: dict[str, float] = made["history"][-1] if made["history"] else {}
    return {
        "weights": stack.hashes(name),
        "begun_from": made["begun_from"],
        "step": made["step"],
        "steps": made["steps"],
        "batch_size": settings["stack"][name]["batch_size"],
        "losses": {k: round(v, 4) for k, v in last.items() if k not in ("step", "lr", "seconds")},
        "minutes": round(last.get("seconds", 0.0) / 60, 1),
        "seed": settings["seed"],
        "pictures": settings["stack"]["pictures"],
        **made["made_with"],
    }


def write_card(work: Work, target: StackFolder, figures: dict[str, Any]) -> Path:
    """The card of what lies in ``target``."""
    template = jinja2.Template(
        (resources.files("jobs._tiny_stack") / "card.md.jinja").read_text(),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    parts, sizes = target.record(), _sizes(target)
    text = template.render(
        stack=work.stack,
        parts={name: parts[name] for name in PARTS if name in parts},
        missing=[name for name in PARTS if not target.has(name)],
        untold=[name for name in PARTS if target.has(name) and name not in parts],
        encoders=encoder_records(work, target),
        sizes=sizes,
        total=sum(size for _, size, _ in sizes),
        figures=figures,
    )
    path = target.root / CARD
    path.write_text(text)
    return path


def _sizes(stack: StackFolder) -> list[tuple[str, int, str]]:
    """(file, bytes, hash) of the weights that are there."""
    there = [n for n in WEIGHTS if stack.weights(n).is_file()]
    return [(WEIGHTS[n], stack.weights(n).stat().st_size, stack.hash(n)) for n in there]
