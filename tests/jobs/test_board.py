"""What workers tell reaches the driver, on one machine and on a cluster."""

from __future__ import annotations

import gc
import tempfile
from pathlib import Path

import pytest
import ray

from jobs._board import Board

EACH = 50


@ray.remote(num_cpus=0.5)
def tell(board: Board, teller: int) -> None:
    for number in range(EACH):
        board.tell({"teller": teller, "number": number, "text": "a\nb" * 100})
    board.read()  # comes after what this process told: on a cluster that is still on its way


@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize("local", [True, False])
def test_all_is_read_once_and_in_order(local: bool) -> None:
    board, read = Board(local), []
    with board.read_by(read.append):
        ray.get([tell.remote(board, teller) for teller in range(3)])
    for teller in range(3):
        assert [notice["number"] for notice in read if notice["teller"] == teller] == list(range(EACH))


@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize("local", [True, False])
def test_what_a_reader_raises_is_raised_on_leaving(local: bool) -> None:
    board = Board(local)

    def refuse(notice: int) -> None:
        raise ValueError(f"not {notice}")

    def work() -> None:
        with board.read_by(refuse):
            board.tell(1)
            board.tell(2)

    with pytest.raises(ValueError, match="not 1"):
        work()


def test_nothing_is_left_on_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    board = Board(local=True)
    board.tell(1)
    assert len(list(tmp_path.iterdir())) == 1
    del board
    gc.collect()
    assert not list(tmp_path.iterdir())
