"""Fingerprints are the same everywhere or refused."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e4t_core.errors import DataError
from e4t_core.record import Record, canonical_json, fingerprint, versions

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda leaf: st.lists(leaf, max_size=3) | st.dictionaries(st.text(), leaf, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), json_values, max_size=5))
def test_key_order_changes_nothing(value: dict) -> None:
    assert fingerprint(dict(reversed(value.items()))) == fingerprint(value)


def test_same_in_another_process() -> None:
    value = {"b": [1, 2.5, "é"], "a": None}
    code = f"from e4t_core.record import fingerprint; print(fingerprint({value!r}))"
    env = {"PYTHONHASHSEED": "1"}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert out.stdout.strip() == fingerprint(value)


@pytest.mark.parametrize("value", [{1, 2}, {"a": math.nan}, {"a": object()}, {1: 2}, b"bytes", {"a": [math.inf]}])
def test_ambiguous_values_are_refused(value: object) -> None:
    with pytest.raises(TypeError, match=r"\$"):
        canonical_json(value)


def test_record_round_trip_and_newer_schema() -> None:
    record = Record.of("checkpoint", {"seed": 0}, inputs={"shards": "abc"}, facts={"steps": 3})
    assert Record.from_json(record.to_json(), "x") == record
    newer = record.to_json().replace('"schema":1', '"schema":99')
    with pytest.raises(DataError, match="schema 99"):
        Record.from_json(newer, "x")
    with pytest.raises(DataError, match="x holds no e4t record"):
        Record.from_json("{}", "x")


def test_what_runs_from_a_folder_is_recorded_as_not_installed() -> None:
    found = versions("numpy", "no-such-distribution")
    assert found["no-such-distribution"] == "not installed"
    assert found["numpy"][0].isdigit()
