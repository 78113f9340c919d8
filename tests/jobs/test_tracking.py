"""Logging to MLflow: sqlite, a real server, and places that refuse."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from mlflow import MlflowClient

from jobs._lineage import shown
from jobs._sections import MlflowConfig
from jobs._tracking import PARENT_TAG, Tracker, TrackingError, flatten
from jobs._tracking.places import absolute, beside
from tests.support.processes import free_port


@pytest.fixture(autouse=True)
def _no_server_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def experiment_id(tracker: Tracker) -> str:
    found = MlflowClient(tracking_uri=tracker.uri).get_experiment_by_name(tracker.experiment)
    return str(found.experiment_id)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for the sqlite tests: making MLflow's tables takes seconds."""
    return tmp_path_factory.mktemp("sqlite") / "deep" / "out"


@pytest.fixture(params=["sqlite", pytest.param("server", marks=pytest.mark.cluster)])
def tracker(request: pytest.FixtureRequest, out: Path) -> Tracker:
    if request.param == "sqlite":
        return Tracker.open(MlflowConfig(), str(out))
    return Tracker.open(MlflowConfig(uri=request.getfixturevalue("mlflow_server").uri, experiment="people"))


def test_a_run_with_everything(tracker: Tracker, tmp_path: Path) -> None:
    long = "x" * 13_000 + "end"
    (tmp_path / "rows.txt").write_text("rows")
    params = {"train": {"steps": 5, "note": long, "ema": None}, "prompts": [{"name": "beach"}], "betas": (0.9, 0.99)}
    with tracker.start("parent", {}) as parent, tracker.start("child", params, parent) as run:
        for step in range(3):
            run.metrics({"loss": 1.0 / (step + 1), "rate@gpu": 2.0, "lost": float("nan")}, step)
        run.artifact(tmp_path / "rows.txt", "data")
    client = MlflowClient(tracking_uri=tracker.uri)
    stored = client.get_run(run.id)
    assert stored.info.status == client.get_run(parent.id).info.status == "FINISHED"
    assert stored.info.run_name == "child"
    assert stored.data.tags[PARENT_TAG] == parent.id
    found = stored.data.params
    assert (found["train.steps"], found["train.ema"], found["prompts.0.name"]) == ("5", "null", "beach")
    assert found["betas"] == "[0.9, 0.99]"
    assert found["train.note"] + found["train.note.part2"] + found["train.note.part3"] == long
    assert [m.value for m in client.get_metric_history(run.id, "loss")] == [1.0, 0.5, 1 / 3]
    assert set(stored.data.metrics) == {"loss", "rate_gpu"}
    assert [a.path for a in client.list_artifacts(run.id, "data")] == ["data/rows.txt"]


def test_more_params_and_metrics_than_one_request_may_hold(tracker: Tracker) -> None:
    with tracker.start("wide", {f"p{i}": i for i in range(250)}) as run:
        run.metrics({f"m{i}": i for i in range(1200)})
    data = MlflowClient(tracking_uri=tracker.uri).get_run(run.id).data
    assert (len(data.params), len(data.metrics)) == (250, 1200)


def test_a_copy_in_a_worker_logs_to_the_same_run(tracker: Tracker) -> None:
    with tracker.start("run", {}) as run:
        copy = pickle.loads(pickle.dumps(run))
        copy.metrics({"from_worker": 3.0})
        copy.flush()
    assert MlflowClient(tracking_uri=tracker.uri).get_run(run.id).data.metrics == {"from_worker": 3.0}


@pytest.mark.parametrize(("error", "status"), [(ValueError("boom"), "FAILED"), (KeyboardInterrupt(), "KILLED")])
def test_an_exception_marks_the_run(tracker: Tracker, error: BaseException, status: str) -> None:
    run = tracker.start("run", {})

    def work() -> None:
        with run:
            run.metrics({"a": 1.0})
            raise error

    with pytest.raises(type(error)):
        work()
    stored = MlflowClient(tracking_uri=tracker.uri).get_run(run.id)
    assert stored.info.status == status
    assert stored.data.metrics == {"a": 1.0}


def test_runs_of_one_benchmark_share_their_parent(tracker: Tracker) -> None:
    first = tracker.start("benchmark", {"recipe": "tiny", "threads": 1}, key="0123abcd")
    again = Tracker.open(MlflowConfig(uri=tracker.uri, experiment=tracker.experiment))
    assert again.start("benchmark", {"threads": 2, "seed": 0}, key="0123abcd").id == first.id
    assert again.start("benchmark", {}, key="another").id != first.id
    params = MlflowClient(tracking_uri=tracker.uri).get_run(first.id).data.params
    assert params == {"recipe": "tiny", "threads": "1", "seed": "0"}, "a run keeps what it was begun with"


def test_sqlite_and_artifacts_lie_in_a_local_out(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("a")
    tracker = Tracker.open(MlflowConfig(), str(out))
    with tracker.start("run", {}) as run:
        run.artifact("a.txt")
    assert tracker.uri == f"sqlite:///{out}/mlflow.db"
    assert list(out.rglob("a.txt"))
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_remote_out_logs_beside_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert beside("memory://bucket/out") == f"sqlite:///{tmp_path}/mlflow.db"
    assert absolute("sqlite:///mine.db") == f"sqlite:///{tmp_path}/mine.db"


def test_the_environment_names_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{out}/mlflow.db")
    assert Tracker.open(MlflowConfig(), str(tmp_path)).uri == f"sqlite:///{out}/mlflow.db"
    with pytest.raises(TrackingError, match="nonsense://x"):  # the recipe says otherwise
        Tracker.open(MlflowConfig(uri="nonsense://x"), str(tmp_path))


def test_a_server_that_is_not_there_is_named_at_once(tmp_path: Path) -> None:
    uri = f"http://reader:secret@127.0.0.1:{free_port()}"
    with pytest.raises(
        TrackingError, match=r"reader:\*\*\*@127.* does not serve .*start it, correct mlflow.uri"
    ) as told:
        Tracker.open(MlflowConfig(uri=uri), str(tmp_path), must_answer=True)
    assert "secret" not in str(told.value)
    assert told.value.exit_code == 1


@pytest.mark.parametrize("uri", ["nonsense://x", "sqlite:////proc/none/mlflow.db"])
def test_places_that_cannot_hold_runs(uri: str, tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match="does not serve"):
        Tracker.open(MlflowConfig(uri=uri), str(tmp_path))


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("text" * 1000)
    with pytest.raises(TrackingError, match="not a database"):
        Tracker.open(MlflowConfig(), str(tmp_path))


def test_a_deleted_experiment_is_explained(out: Path) -> None:
    tracker = Tracker.open(MlflowConfig(experiment="gone"), str(out))
    MlflowClient(tracking_uri=tracker.uri).delete_experiment(experiment_id(tracker))
    with pytest.raises(TrackingError, match=r"'gone' .* is deleted.*mlflow.experiment"):
        Tracker.open(MlflowConfig(experiment="gone"), str(out))


def test_flatten_keeps_plain_lists_whole() -> None:
    tree = {"a": {"b": [1, 2], "c": True}, "d": "text", "e": [{"f": 1}, {"f": 2}]}
    assert flatten(tree) == {"a.b": "[1, 2]", "a.c": "true", "d": "text", "e.0.f": "1", "e.1.f": "2"}


def test_passwords_are_not_shown() -> None:
    assert shown("postgresql://user:pw@host/db") == "postgresql://user:***@host/db"
    assert shown("http://host:5000/a@b") == "http://host:5000/a@b"
