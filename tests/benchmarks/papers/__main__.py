"""Run what is missing of the papers' tables, keep its figures, and write the page of all that are kept."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from jobs._trade_off import trade_off
from tests.benchmarks.papers.page import page, plots
from tests.benchmarks.papers.studies import STUDIES, Results, keep_all

PAGE, KEPT, COMMAND = "papers.md", "papers", "python -m tests.benchmarks.papers"


def main() -> int:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/papers"), help="where everything is made")
    parser.add_argument("--page", type=Path, default=Path("tests/benchmarks/results"), help="where page and figures go")
    parser.add_argument("--studies", default=",".join(s.name for s in STUDIES), help="which to run; '' runs none")
    parser.add_argument("--only", help="these methods or variants of them: the rest on another day or machine")
    args = parser.parse_args()
    only = ["--only", args.only] if args.only else []
    wanted = [name for name in args.studies.split(",") if name]
    for study in STUDIES:
        if study.name in wanted:
            words = [*study.command, *only, "--out", str(args.out / study.name), "--yes"]
            subprocess.run([sys.executable, "-m", "jobs", *words], check=True)
    args.page.mkdir(parents=True, exist_ok=True)
    keep_all(args.out, args.page / KEPT)
    results = Results(args.page / KEPT)
    (args.page / PAGE).write_text(page(results, COMMAND))
    for file, entries in plots(results).values():
        (args.page / file).write_bytes(trade_off(entries))
    print(args.page / PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
