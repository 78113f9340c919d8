"""Run benchmarks and print one table. Each bench is a file here with ``run(quick: bool) -> list[Figure]``."""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from tests.benchmarks.measure import Figure, cpu_model

BENCHES = (
    "ingest", "encode", "train_step", "from_shards", "attention", "tiny_world", "shards", "concurrent", "tuning_memory",
    "report_page",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", default=list(BENCHES), help=f"of {', '.join(BENCHES)}")
    parser.add_argument("--quick", action="store_true", help="smaller inputs, rougher figures")
    parser.add_argument("--out", type=Path, help="write the figures as JSON too")
    args = parser.parse_args()
    figures: list[Figure] = []
    for name in args.names:
        print(f"# {name}", flush=True)
        # One process a bench: Ray, torch threads and peak memory start afresh.
        code = (
            "import importlib, json, dataclasses;"
            f"m = importlib.import_module('tests.benchmarks.{name}');"
            f"print('FIGURES', json.dumps([dataclasses.asdict(f) for f in m.run({args.quick})]))"
        )
        done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
        line = next(text for text in done.stdout.splitlines() if text.startswith("FIGURES "))
        found = [Figure(**f) for f in json.loads(line.removeprefix("FIGURES "))]
        for figure in found:
            print(figure.line(), flush=True)
        figures += found
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        head = {
            "command": f"python -m tests.benchmarks {' '.join(sys.argv[1:])}",
            "hardware": cpu_model(),
            "python": platform.python_version(),
        }
        args.out.write_text(json.dumps({**head, "figures": [asdict(f) for f in figures]}, indent=1) + "\n")
    return 0 if all(f.ok is not False for f in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
