"""``python -m jobs COMMAND``: the same words locally, under ``ray job submit`` and on a cluster."""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import jobs
from e4t_core.errors import UserError, nearest
from jobs._job import Job


def commands() -> list[str]:
    """Every command: the files of this folder that do not start with ``_``."""
    return sorted(
        m.name.replace("_", "-") for m in pkgutil.iter_modules(jobs.__path__) if not m.ispkg and m.name[0] != "_"
    )


def _module(command: str) -> ModuleType:
    return importlib.import_module(f"jobs.{command.replace('-', '_')}")


def _usage() -> str:
    width = max(len(c) for c in commands())
    lines = [f"  {c:<{width}}  {_module(c).HELP}" for c in commands()]
    return "usage: python -m jobs COMMAND [--help] ...\n\ncommands:\n" + "\n".join(lines)


def parser(command: str) -> argparse.ArgumentParser:
    """The command's parser: the common flags and its own."""
    module = _module(command)
    out = argparse.ArgumentParser(prog=f"python -m jobs {command}", description=module.HELP)
    common = out.add_argument_group("common")
    recipe = getattr(module, "RECIPE", "tiny")
    common.add_argument(
        "--recipe", default=recipe, metavar="NAME|PATH|URI", help=f"the run's recipe (default: {recipe})"
    )
    common.add_argument("--set", action="append", default=[], metavar="A.B=C", help="override one value; repeatable")
    common.add_argument("--out", metavar="URI", help="where results go: local, s3:// or any fsspec URI")
    common.add_argument("--json", action="store_true", help="the last line printed is one JSON summary")
    common.add_argument("--dry-run", action="store_true", help="print the plan and do nothing")
    common.add_argument("--yes", action="store_true", help="do not ask before deleting")
    module.arguments(out)
    return out


def start(command: str, words: Sequence[str]) -> dict[str, Any]:
    """Run one command in this process and return its summary; errors are raised."""
    summary: dict[str, Any] = _module(command).run(Job(parser(command).parse_args(list(words))))
    return summary


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the return value is the exit code (0 done, 1 failed, 2 wrong usage, 3 too many bad)."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(_usage())  # noqa: T201
        return 0 if words else 2
    command = words[0]
    if command not in commands():
        print(f"no command is called '{command}'{nearest(command, commands())}", file=sys.stderr)  # noqa: T201
        return 2
    args = parser(command).parse_args(words[1:])
    try:
        summary = _module(command).run(Job(args))
    except UserError as error:
        print(f"e4t {command}: {error}", file=sys.stderr)  # noqa: T201
        if args.json:
            print(json.dumps({"error": str(error), "exit_code": error.exit_code, **error.facts}))  # noqa: T201
        return error.exit_code
    if args.json:
        print(json.dumps(summary))  # noqa: T201
    return int(summary.get("exit_code", 0))


if __name__ == "__main__":
    sys.exit(main())
