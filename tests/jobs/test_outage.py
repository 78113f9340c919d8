"""MLflow is away for a while: jobs go on, nothing is lost, and nothing is there twice when it is back."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.data import dataset_source_registry
from mlflow.entities import Run as MlflowRun

from e4t_core.errors import DataError, UsageError
from e4t_core.storage import Store
from jobs import _aggregates
from jobs.__main__ import main, start
from jobs._sections import MlflowConfig
from jobs._tracking import Away, Tracker, TrackingError, link
from jobs._tracking.places import BRIEF, KEY_TAG, once, patience, told
from jobs._tracking.replay import replay
from jobs._tracking.spool import FOLDER, Spool
from pipelines.loader import ShardDataset
from tests.jobs import people
from tests.support.flaky_proxy import FlakyProxy
from tests.support.mlflow_server import MlflowServer
from tests.support.processes import free_port


@pytest.fixture(autouse=True)
def _no_server_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """URI of a tracking store that answers."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('sqlite')}/mlflow.db"
    Tracker.open(MlflowConfig(uri=uri))
    return uri


@pytest.fixture
def nobody() -> str:
    """URI of a server that is not there."""
    return f"http://127.0.0.1:{free_port()}"


def runs(uri: str, experiment: str = "e4t") -> dict[str, MlflowRun]:
    """Name -> run; fails if two have one name."""
    client = MlflowClient(tracking_uri=uri)
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    names = {run.info.run_name: run for run in found}
    assert len(names) == len(found)
    return names


def history(uri: str, run: MlflowRun, key: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in MlflowClient(tracking_uri=uri).get_metric_history(run.info.run_id, key)]


def artifacts(uri: str, run: MlflowRun) -> set[str]:
    return {entry.path for entry in MlflowClient(tracking_uri=uri).list_artifacts(run.info.run_id)}


def waiting(out: Path | str) -> list[str]:
    return Spool(Store(out)).waiting()


# --- a job and a real server


@pytest.mark.cluster
def test_the_server_is_stopped_in_the_middle_of_a_job(
    mlflow_server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, uri = people.family(2, 2), mlflow_server.uri
    people.shards(str(tmp_path / "shards"), photos)
    people.images(str(tmp_path / "images"), photos, prompts=people.PROMPTS[:1])
    people.without_ray(monkeypatch)
    to_server = ("--set", f"mlflow.uri={uri}", "--set", "mlflow.experiment=outage")
    quick = ("--set", "evaluate.bootstrap_samples=50", "--set", "clip.random_seed=0", *to_server)
    inputs = ("--images", str(tmp_path / "images"), "--shards", str(tmp_path / "shards"))
    evaluate = ("evaluate", *inputs, *quick, "--out", str(tmp_path / "scored"))
    real = MlflowClient.log_batch

    def pulled(self: MlflowClient, *args: Any, **fields: Any) -> Any:
        if "metrics" in fields:
            mlflow_server.stop()
        return real(self, *args, **fields)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", pulled)
        assert main(evaluate) == 0
    told_of = capsys.readouterr().err
    assert f"report --sync {tmp_path / 'scored'}` sends them" in told_of
    stored = json.loads((tmp_path / "scored" / "evaluation.json").read_text())
    page = ("report", "--evaluation", str(tmp_path / "scored"), *to_server, "--out", str(tmp_path / "page"), "--json")
    assert main(page) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["mlflow"] == []
    assert [bool(waiting(tmp_path / name)) for name in ("scored", "page")] == [True, True]

    mlflow_server.start()
    before = runs(uri, "outage")
    assert {run.info.status for run in before.values()} == {"RUNNING"}
    assert before["e4t (tiny)"].data.metrics == {}
    assert main(("report", "--sync", str(tmp_path), "--json")) == 0  # the URI is that of the events
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (summary["sent"] > 5, summary["waiting"]) == (True, 0)
    assert main(("report", "--sync", str(tmp_path), *to_server, "--json")) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["sent"] == 0
    assert not list(tmp_path.rglob(f"{FOLDER}/*"))

    after = runs(uri, "outage")
    assert {name: run.info.run_id for name, run in after.items()} == {n: r.info.run_id for n, r in before.items()}
    child, parent = after["e4t (tiny)"], after["benchmark tiny"]
    assert stored["mlflow"]["runs"] == {"e4t": child.info.run_id}
    assert {child.info.status, parent.info.status} == {"FINISHED"}
    assert child.data.metrics == pytest.approx(_aggregates.metrics(stored["methods"][0]))
    assert all(len(history(uri, child, key)) == 1 for key in ("identity", "identity.low", "identity.high"))
    assert artifacts(uri, child) == {"evaluation.json", stored["rows"].rsplit("/", 1)[-1]}
    assert artifacts(uri, parent) == {"report.html", "sheet.png", "trade_off.png"}
    shards, images = sorted((i.dataset for i in child.inputs.dataset_inputs), key=lambda d: d.name, reverse=True)
    assert shards.digest == stored["record"]["inputs"]["references"]
    assert images.digest == stored["record"]["inputs"]["images"]
    assert json.loads(shards.profile) == {"samples": 4, "quarantined": 0}
    opened = dataset_source_registry.get_dataset_source_from_json(shards.source, shards.source_type).load()
    assert isinstance(opened, ShardDataset)
    assert len(opened) == 4


@pytest.mark.cluster
def test_answers_that_are_lost_make_nothing_twice(mlflow_server: MlflowServer, tmp_path: Path) -> None:
    proxy = FlakyProxy(mlflow_server.uri, {"lost_response": 0.25, "lost_request": 0.15, "slow_down": 0.1}, seed=5)
    (tmp_path / "a.txt").write_text("a")
    with proxy.running(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(link, "PAUSE_S", 0.0)
        tracker = Tracker.open(MlflowConfig(uri=proxy.url, experiment="flaky"), str(tmp_path))
        with tracker.start("parent", {"p": 1}) as parent:
            for number in range(4):
                with tracker.start(f"child {number}", {f"q{i}": i for i in range(120)}, parent) as run:
                    for step in range(3):
                        run.metrics({"loss": number + step / 8}, step)
                        run.flush()
                    run.artifact(tmp_path / "a.txt")
        for _ in range(60):
            if waiting(tmp_path):
                parent.tags({"again": "yes"})
    assert proxy.happened["lost_response", "POST"] > 3, "the network was not bad enough to show anything"
    assert waiting(tmp_path) == []
    found = runs(mlflow_server.uri, "flaky")
    assert set(found) == {"parent", *(f"child {number}" for number in range(4))}
    for number in range(4):
        child = found[f"child {number}"]
        assert history(mlflow_server.uri, child, "loss") == [(step, number + step / 8) for step in range(3)]
        assert (len(child.data.params), artifacts(mlflow_server.uri, child)) == (120, {"a.txt"})
        assert child.data.tags["mlflow.parentRunId"] == found["parent"].info.run_id
        assert child.info.status == "FINISHED"


# --- what waits


def test_a_server_that_never_answered_gets_everything_later(
    nobody: str, store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out, spare = tmp_path / "jobs" / "out", tmp_path / "b.txt"
    spare.write_text("b")
    tracker = Tracker.open(MlflowConfig(uri=nobody, experiment="late"), str(out))
    assert f"what is logged for {nobody} waits in {out}/{FOLDER}" in caplog.text
    with tracker.start("parent", {"seed": 1}) as parent, tracker.start("child", {}, parent, {"t": "v"}) as run:
        copy = pickle.loads(pickle.dumps(run))  # as in a worker
        copy.metrics({"loss": 2.0}, 1)
        run.artifact(spare, "folder")
        run.tags({"more": "tags"})
    spare.unlink()
    assert (run.id, len(waiting(out))) == (None, 7)
    assert "7 records wait for experiment 'late'" in tracker.standing()
    assert replay([str(tmp_path)], store, lambda line: None) == 7
    assert waiting(out) == []
    found = runs(store, "late")
    child = found["child"]
    assert (child.data.metrics, child.data.tags["t"], child.data.tags["more"]) == ({"loss": 2.0}, "v", "tags")
    assert child.data.tags["mlflow.parentRunId"] == found["parent"].info.run_id
    assert child.data.tags[KEY_TAG] == run.name.key
    assert child.info.start_time == run.name.started, "when it happened, not when it was sent"
    assert found["parent"].data.params == {"seed": "1"}
    client = MlflowClient(tracking_uri=store)
    assert Path(client.download_artifacts(child.info.run_id, "folder/b.txt", str(tmp_path))).read_text() == "b"


def test_what_waits_goes_out_first_when_the_store_is_back(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Tracker.open(MlflowConfig(uri=store), str(tmp_path))
    run = tracker.start("back", {})

    def away(*args: object, **kwargs: object) -> None:
        raise OSError("no route to host")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", away)
        run.metrics({"loss": 1.0}, 1)
        assert len(waiting(tmp_path)) == 1
    run.tags({"tried": "too early"})
    assert len(waiting(tmp_path)) == 2, "the store is left alone for a while"
    monkeypatch.setattr(link, "PAUSE_S", 0.0)
    tracker.link._pause_until = 0.0
    run.metrics({"loss": 0.5}, 2)
    run.close()
    assert waiting(tmp_path) == []
    assert history(store, runs(store)["back"], "loss") == [(1, 1.0), (2, 0.5)]
    assert tracker.standing() == f"logged to experiment 'e4t' at {store}"


def test_a_job_that_is_killed_while_the_server_is_away_repeats_nothing(nobody: str, store: str, tmp_path: Path) -> None:
    """The first process logs three steps; the second goes on from step 2 with other seconds for what it repeats."""
    for steps, seconds in (((1, 2, 3), 0.5), ((2, 3, 4), 0.7)):
        tracker = Tracker.open(MlflowConfig(uri=nobody, experiment="killed"), str(tmp_path))
        run = tracker.start("pretrain", {"threads": seconds}, key="pretrain-1")
        for step in steps:
            run.metrics({"loss": 1 / step, "seconds": seconds}, step)
        run.flush()
    replay([str(tmp_path)], store, lambda line: None)
    (found,) = runs(store, "killed").values()
    assert history(store, found, "loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, 0.25)]
    assert [value for _, value in history(store, found, "seconds")] == [0.5, 0.5, 0.5, 0.7]
    third = Tracker.open(MlflowConfig(uri=store, experiment="killed"), str(tmp_path))
    run = third.start("pretrain", {}, key="pretrain-1")
    run.metrics({"loss": 0.9}, 4)
    run.metrics({"loss": 0.2}, 5)
    run.close()
    assert history(store, found, "loss")[3:] == [(4, 0.25), (5, 0.2)]


def test_a_replay_that_is_interrupted_is_repeated(
    nobody: str, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Tracker.open(MlflowConfig(uri=nobody, experiment="twice"), str(tmp_path)).start("run", {"a": 1})
    run.metrics({"loss": 1.0}, 1)
    run.close()
    with monkeypatch.context() as patch:
        patch.setattr(Spool, "drop", lambda self, key: None)  # killed before it could note that it had sent
        replay([str(tmp_path)], store, lambda line: None)
    assert len(waiting(tmp_path)) == 3
    with monkeypatch.context() as patch:

        def away(*args: object, **kwargs: object) -> None:
            raise OSError("gone again")

        patch.setattr(MlflowClient, "set_terminated", away)
        with pytest.raises(TrackingError, match=r"1 records still wait in .*gone again") as told_of:
            replay([str(tmp_path)], store, lambda line: None)
    assert told_of.value.facts == {"sent": 2, "waiting": 1}
    assert replay([str(tmp_path)], store, lambda line: None) == 1
    assert history(store, runs(store, "twice")["run"], "loss") == [(1, 1.0)]


def test_the_next_command_on_the_folder_sends_what_waits(nobody: str, store: str, tmp_path: Path) -> None:
    Tracker.open(MlflowConfig(uri=nobody, experiment="next"), str(tmp_path)).start("first", {}).close()
    Tracker.open(MlflowConfig(uri=store, experiment="next"), str(tmp_path)).start("second", {}).close()
    assert waiting(tmp_path) == []
    assert {run.info.status for run in runs(store, "next").values()} == {"FINISHED"}
    assert set(runs(store, "next")) == {"first", "second"}


def test_spools_lie_in_any_store(nobody: str, store: str) -> None:
    out = "memory://bucket/deep/out"
    Tracker.open(MlflowConfig(uri=nobody, experiment="bucket"), out).start("run", {"a": 1}).close()
    (spool,) = Spool.below("memory://bucket")
    assert (spool.uri, len(spool.waiting())) == (f"{out}/{FOLDER}", 2)
    assert start("report", ["--sync", "memory://bucket", "--dry-run"]) == {"dry_run": True, "waiting": 2}
    assert start("report", ["--sync", out, "--set", f"mlflow.uri={store}"]) == {"sent": 2, "waiting": 0}
    assert set(runs(store, "bucket")) == {"run"}


def test_a_server_that_is_still_away_keeps_everything(
    nobody: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    Tracker.open(MlflowConfig(uri=nobody), str(tmp_path)).start("run", {}).close()
    assert main(("report", "--sync", str(tmp_path))) == 1
    assert len(waiting(tmp_path)) == 2


# --- what is wrong is said


def test_a_password_is_not_kept_and_must_be_given_again(nobody: str, store: str, tmp_path: Path) -> None:
    secret = nobody.replace("://", "://me:secret@")
    Tracker.open(MlflowConfig(uri=secret), str(tmp_path)).start("masked", {}).close()
    assert not [path for path in tmp_path.rglob("*.json") if "secret" in path.read_text()]
    with pytest.raises(UsageError, match="whose password is not kept"):
        replay([str(tmp_path)], None, lambda line: None)
    assert replay([str(tmp_path)], store, lambda line: None) == 2


@pytest.mark.parametrize(
    "content", [b"no json", b'{"schema": 99}', b'{"schema": 1, "kind": "tags"}', b'{"schema": 1, "kind": "x"}']
)
def test_a_damaged_record_is_named(content: bytes, store: str, tmp_path: Path) -> None:
    key = f"{FOLDER}/00000000000000000001-aa.json"
    Store(tmp_path).put(key, content)
    with pytest.raises(DataError, match=rf"{key} (is no event that waits for MLflow|has event schema 99)"):
        replay([str(tmp_path)], store, lambda line: None)


@pytest.mark.parametrize("uri", ["nonsense://x", "sqlite:////proc/none/mlflow.db"])
def test_places_that_will_never_answer_are_refused_before_any_work(uri: str, tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match="does not serve") as told_of:
        Tracker.open(MlflowConfig(uri=uri), str(tmp_path / "out"))
    assert not isinstance(told_of.value, Away)
    assert not (tmp_path / "out").exists()


def test_errors_of_bucket_clients_are_explained_and_bugs_are_not() -> None:
    from botocore.exceptions import EndpointConnectionError

    with pytest.raises(TrackingError, match="does not serve"), told("http://host"):
        raise EndpointConnectionError(endpoint_url="http://bucket")
    with pytest.raises(KeyError), told("http://host"):
        raise KeyError("a bug")


def test_the_clients_patience_is_short_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in BRIEF:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    with patience(BRIEF):
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "1"
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
        with once():
            assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "1"
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ
