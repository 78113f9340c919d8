"""The GPU suite: what one GPU makes of full-size models, with random weights and images of noise, without Ray.

    python -m tests.benchmarks.gpu --out tests/benchmarks/results/gpu.json
    python -m tests.benchmarks.gpu --small --device cpu      # the same code on the tiny stack, to see that it runs

Stable Diffusion 1.5 and CLIP ViT-H/14 in bfloat16 at 512 px: what weights hold does not change how long they take. Each
part is a file of ``tests/benchmarks/full_size/``.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import sys
import time
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from e4t_core.memory import out_of_memory
from tests.benchmarks.full_size import personalizing, pretraining
from tests.benchmarks.full_size.rig import Rig
from tests.benchmarks.measure import Figure, cpu_model

METHODS = tuple(sorted({*pretraining.METHODS, *(case.method for case in personalizing.CASES)}))
PARTS = ("stages", "drawing", "concurrent", "pretraining", "personalizing")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu", description=__doc__)
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="the tiny stack, and few steps")
    parser.add_argument("--methods", help="of pretraining and personalizing only these, separated by commas")
    parser.add_argument("--out", type=Path, help="write the figures as JSON too, part by part")
    args = parser.parse_args()
    unknown = set(args.parts) - set(PARTS)
    if unknown:
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    figures: list[Figure] = []
    methods = frozenset(args.methods.split(",")) if args.methods else None
    strange = (methods or frozenset()) - set(METHODS)
    if strange:
        parser.error(f"no method {', '.join(sorted(strange))}; there are {', '.join(METHODS)}")
    rig = Rig(torch.device(args.device), args.small, methods)
    for name in args.parts:
        print(f"# {name}", flush=True)
        started = time.perf_counter()
        for figure in _part(name, rig):
            print(figure.line(), flush=True)
            figures.append(figure)
            if args.out:
                _write(args.out, figures)
        print(f"  ({time.perf_counter() - started:.0f} s)", flush=True)
        gc.collect()
    return 0


def _part(name: str, rig: Rig) -> Any:
    """The figures of one part; what does not fit into memory is told, and the next part goes on."""
    try:
        yield from import_module(f"tests.benchmarks.full_size.{name}").run(rig)
    except Exception as error:
        if not out_of_memory(error):
            raise
        print(f"  {name} stops here: {str(error).splitlines()[0]}", flush=True)


def _write(out: Path, figures: list[Figure]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    head = {
        "command": " ".join(["python -m tests.benchmarks.gpu", *sys.argv[1:]]),
        "hardware": gpu or cpu_model(),
        "host": cpu_model(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    out.write_text(json.dumps({**head, "figures": [asdict(f) for f in figures]}, indent=1) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
