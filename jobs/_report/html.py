"""Templates of pages: escaping, and the filters that they share."""

from __future__ import annotations

import datetime

import jinja2

from jobs._report import words


def template(name: str) -> jinja2.Template:
    """A template of this folder. All text is escaped; a name that is not given to it is an error."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jobs", "_report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": words.number, "count": words.count, "size": words.size, "seconds": words.seconds,
        "between": words.between, "plural": words.plural, "date": _date,
    }  # fmt: skip
    return environment.get_template(name)


def _date(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%-d %B %Y, %H:%M UTC")
