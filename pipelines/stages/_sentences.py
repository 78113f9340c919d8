"""Captions as text: where a sentence names the concept, how labels read, and which words are still to be said."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

from e4t_core.backbones.attributes import AttributeList
from e4t_core.config import parse_yaml, validate
from e4t_core.errors import UsageError, nearest
from e4t_core.storage import Store
from pipelines.stages._decode import Fault

_DETERMINERS = "a|an|the|this|that|one|his|her|their|its|my"
_BETWEEN = f"{_DETERMINERS}|and|or|of|in|on|at|by|to|for|from|with|is|are|as|near|over|under|behind"
"""Words that no determiner reaches across to its noun."""
_BEFORE_NOUN = re.compile(rf"(?<![\w'-])(?:{_DETERMINERS})\s+(?:(?!(?:{_BETWEEN})\s)[\w'-]+\s+){{0,3}}$", re.IGNORECASE)


def gap_at(sentence: str, nouns: Sequence[str]) -> str | None:
    """The sentence with ``{}`` for the noun phrase of the first of ``nouns`` that it has; None if it has none.

    ``a photo of a young woman smiling`` -> ``a photo of {} smiling``. The phrase is the noun with its determiner and up
    to three words between them.
    """
    if "{" in sentence or "}" in sentence:
        return None  # a template has one gap and no other braces
    for noun in nouns:
        if found := re.search(_word(noun), sentence, re.IGNORECASE):
            before = _BEFORE_NOUN.search(sentence[: found.start()])
            start = before.start() if before else found.start()
            return f"{sentence[:start]}{{}}{sentence[found.end() :]}"
    return None


def joined(sentence: str, phrases: Iterable[str]) -> str:
    """``a photo of a woman, wearing eyeglasses, black hair``: the sentence, then what it does not say yet."""
    further = [phrase for phrase in phrases if not re.search(_word(phrase), sentence, re.IGNORECASE)]
    return ", ".join((sentence, *further))


def _word(text: str) -> str:
    return rf"(?<![\w'-]){re.escape(text)}(?![\w'-])"


def spoken(labels: Mapping[str, Any], name: str, phrases: Mapping[str, str]) -> list[str] | None:
    """A label as phrases: each word of a list, a word, or the label's own name if it is true; None if there is none.

    Words are said as ``phrases`` has it, others as they are, with spaces for underscores.

    Raises:
        Fault: ``bad_label``, something that is no word and has no phrase.
    """
    value = labels.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        value = [name] if value else []
    out = []
    for word in value if isinstance(value, list) else [value]:
        known = phrases.get(str(word))
        if known is None and not (isinstance(word, str) and re.search(r"[^\W\d_]", word)):
            raise Fault(
                "bad_label",
                f"its label '{name}' holds {word!r}, which is no word; give it a phrase in the list that "
                "stages.caption.attributes names",
            )
        out.append(known or " ".join(word.replace("_", " ").split()))
    return out


def attribute_list(name: str) -> AttributeList:
    """A list of ``attributes/`` (``face``), or of a YAML file or URI.

    Raises:
        UsageError: there is none, or it is not one.
    """
    where = f"the attribute list '{name}'"
    return validate(AttributeList, parse_yaml(_read(name), where), where)


def _read(name: str) -> str:
    if "/" in name or name.endswith((".yaml", ".yml")):
        folder, _, file = name.rpartition("/")
        try:
            return Store(folder or ".").read(file).decode()
        except (FileNotFoundError, UnicodeDecodeError) as error:
            raise UsageError(f"stages.caption.attributes: '{name}' is no YAML file that can be read") from error
    shipped = resources.files("pipelines.stages") / "attributes"
    known = [file.name.removesuffix(".yaml") for file in shipped.iterdir() if file.name.endswith(".yaml")]
    if name not in known:
        raise UsageError(f"stages.caption.attributes: no list is called '{name}'{nearest(name, known)}")
    return (shipped / f"{name}.yaml").read_text(encoding="utf-8")
