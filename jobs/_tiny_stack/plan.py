"""What a run would do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from jobs._tiny_stack.order import PARTS, PICTURES, finished, progress
from jobs._tiny_stack.pictures import train_spots
from jobs._tiny_stack.work import Work


def plan(work: Work, only: Sequence[str]) -> dict[str, Any]:
    """Pictures and steps of every chosen part, and what is done; writes nothing."""
    pictures = dict(Counter(spot.domain for spot in train_spots(work.stack.pictures)))
    begun = progress(work)
    parts = {}
    for name in (n for n in only if n in PARTS):
        config = getattr(work.stack, name)
        parts[name] = {
            "steps": config.steps,
            "done": begun[name]["step"] if name in begun else 0,
            "finished": finished(work, name) is not None,
            "samples": config.steps * config.batch_size,
        }
    work.job.say(f"{PICTURES:<10} {sum(pictures.values())}: {pictures} -> {work.pictures}")
    for name, part in parts.items():
        work.job.say(f"{name:<10} {part['done']} of {part['steps']} steps, {part['samples']} samples in all")
    return {"dry_run": True, "out": str(work.out), "pictures": pictures, "parts": parts}
