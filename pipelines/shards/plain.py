"""Members under the names that other tools expect: ``png``, ``jpg`` or ``webp`` for the image, ``txt`` for the caption,
``json`` for what is known of the sample, and the others as :mod:`e4t_core.schema` has them."""

from __future__ import annotations

from typing import Any

from e4t_core.errors import DataError
from e4t_core.schema import Sample, decode_json, encode_json


def plain(sample: Sample) -> tuple[dict[str, bytes], dict[str, Any]]:
    """A sample's members under the names that other tools know, and its index row but for where it lies.

    ``json`` holds ``key``, ``id``, ``identity``, ``labels``; with ``caption``, its ``template`` and, as ``caption``,
    its text; with ``ingest``, as ``meta``, the rest of ``meta.json``.

    Raises:
        DataError: a member is no JSON where it should be, or two would have one name.
    """
    what = f"sample '{sample['__id__']}'"
    members = {name: data for name, data in sample.items() if not name.startswith("__")}
    about = {"key": sample["__key__"], "id": sample["__id__"], "identity": sample["__identity__"]}
    labels, text = sample["__labels__"], None
    if "meta.json" in members:
        meta = decode_json(members.pop("meta.json"), f"meta.json of {what}")
        labels = {**labels, **meta["labels"]}
        about["meta"] = {k: v for k, v in meta.items() if k not in ("id", "labels")}
    out: dict[str, bytes] = {}
    if "caption.json" in members:
        caption = decode_json(members.pop("caption.json"), f"caption.json of {what}")
        text = caption.pop("text")
        about |= {"caption": text, **caption}
        out["txt"] = text.encode()
    out["json"] = encode_json({**about, "labels": labels})
    for name, data in members.items():
        short = name.removeprefix("image.")
        if short in out:
            raise DataError(f"{what} has {name}, but {short} is taken in a pack; leave its column out with --columns")
        out[short] = data
    facts = {"key": about["key"], "id": about["id"], "identity": about["identity"]}
    return out, {**facts, "caption": text, "labels_json": encode_json(labels).decode()}
