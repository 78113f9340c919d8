"""Personalized identities as LoRA files, from the set that personalize wrote."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from e4t_core.adapters.low_rank import LowRank
from e4t_core.backbones.base import Backbone
from e4t_core.errors import UsageError, UserError
from e4t_core.methods import METHODS, Adapter, Method, MethodConfig
from e4t_core.record import RECORD_KEY, Record
from e4t_core.storage import Store
from jobs import __main__ as jobs_main
from jobs._adapter_set import FACTS, pack
from jobs._recipe import load
from jobs._units import Unit, commit, publish

PEOPLE = ("ann", "bob/7", "cas")
FAILED = "dan"
NETWORKS = ("unet", "text_encoder")
LAYERS = (
    "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q",
    "text_encoder.text_model.encoder.layers.0.self_attn.q_proj",
)
KOHYA = (
    "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q",
    "lora_te_text_model_encoder_layers_0_self_attn_q_proj",
)


class PlainConfig(MethodConfig):
    """Of the method below; ``scale`` shows that the set's own recipe is used."""

    scale: float = 1.0


class Plain(Method):
    """Adapters that are the two factors of every layer."""

    name: ClassVar[str] = "plain"
    Config: ClassVar[type[MethodConfig]] = PlainConfig
    columns: tuple[str, ...] = ()
    formats: ClassVar[tuple[str, ...]] = ("native", "short")
    build = pretrain_loss = personalize = conditioning = None  # type: ignore[assignment]

    def export(self, adapter: Adapter, uri: str, fmt: str, record: Record, backbone: Backbone) -> Record:
        assert backbone.device.type == "meta", "no weights are needed"
        Store(uri).put(f"{fmt}.txt", f"{adapter.identity} {record.facts['identity']}".encode())
        return record

    def low_rank_layers(self, adapter: Adapter, backbone: Backbone) -> Mapping[str, LowRank]:
        known = backbone.projections(("q",), NETWORKS)
        assert backbone.device.type == "meta", "no weights are needed"
        found = {}
        for layer in LAYERS:
            up, down = (adapter.tensors[f"{layer}.{part}"] for part in ("up", "down"))
            assert down.shape[1] == known[layer].module.in_features
            found[layer] = LowRank(self.config.scale * up[None], down[None])
        return found


@pytest.fixture(autouse=True)
def plain_is_a_method(monkeypatch: pytest.MonkeyPatch) -> None:
    get = METHODS.get
    monkeypatch.setattr(METHODS, "get", lambda name: Plain if name == "plain" else get(name))


def tensors(seed: int) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {
        f"{layer}.{part}": torch.randn(shape, generator=g)
        for layer, inputs in zip(LAYERS, widths(), strict=True)
        for part, shape in (("up", (inputs, 2)), ("down", (2, inputs)))
    }


def widths() -> tuple[int, int]:
    """Inputs (and outputs) of the two layers in the tiny stack."""
    unet, text = (Store("bundled:tiny").read_json(f"{part}/config.json") for part in NETWORKS)
    return unet["block_out_channels"][-1], text["hidden_size"]


def written(store: Store, method: str = "plain", fields: Mapping[str, Any] | None = None) -> str:
    """A set of three adapters and a failure, as personalize writes it; returns its URI."""
    recipe = load("tiny").dump()
    recipe["method"] = {"name": method, "domain_word": "face", "templates": ["a photo of {}"], **(fields or {})}
    adapters = {who: Adapter(method, who, tensors(n)) for n, who in enumerate(PEOPLE)}
    data, sizes = pack(adapters, Record.of("adapters", recipe))
    blank = {"unit": 0, "seed": 0, "steps": 2, "seconds": 1.0, "meta_json": "{}", "message": ""}
    rows = [{**blank, "identity": who, "key": who, "status": "ok", **sizes[who]} for who in PEOPLE]
    rows.append({**blank, "identity": FAILED, "key": FAILED, "status": "failed", "message": "ValueError: no face"})
    unit = Unit("adapters", 0, "f" * 16, (*PEOPLE, FAILED))
    commits = {0: commit(store, unit, {"safetensors": data}, {})}
    about = {
        "kind": "adapters",
        "method": method,
        "recipe": recipe,
        "recipe_hash": "r" * 16,
        "inputs": {"shards": "s#1"},
    }
    publish(store, commits, rows, FACTS, about)
    return store.uri


@pytest.fixture
def adapters(tmp_path: Path) -> str:
    return written(Store(tmp_path / "adapters"), fields={"scale": 2.0})


def export(*words: str | Path) -> dict[str, Any]:
    return jobs_main.start("export", [str(word) for word in words])


def test_every_identity_that_succeeded_is_exported(adapters: str, tmp_path: Path) -> None:
    out = tmp_path / "loras"
    summary = export("--adapters", adapters, "--format", "kohya", "--out", out)
    files = {p.relative_to(out).as_posix(): p.stat().st_size for p in out.rglob("*") if p.is_file()}
    assert set(files) == {"ann.safetensors", "bob/7.safetensors", "cas.safetensors"}
    assert (summary["identities"], summary["files"], summary["bytes"]) == (3, 3, sum(files.values()))
    assert (summary["method"], summary["format"], summary["adapters"]) == ("plain", "kohya", f"{adapters}#1")
    for n, who in enumerate(PEOPLE):
        found, made = load_file(out / f"{who}.safetensors"), tensors(n)
        for layer, key in zip(LAYERS, KOHYA, strict=True):
            assert torch.equal(found[f"{key}.lora_up.weight"], 2.0 * made[f"{layer}.up"])
            assert torch.equal(found[f"{key}.lora_down.weight"], made[f"{layer}.down"])
            assert found[f"{key}.alpha"].item() == 2


def test_one_identity_for_each_program(adapters: str, tmp_path: Path) -> None:
    files = {
        "diffusers": {"bob/7/pytorch_lora_weights.safetensors"},
        "kohya": {"bob/7.safetensors"},
        "peft": {
            f"bob/7/{n}/adapter_{f}" for n in ("unet", "text_encoder") for f in ("config.json", "model.safetensors")
        },
    }
    for fmt, expected in files.items():
        out = tmp_path / fmt
        words = ("--adapters", adapters, "--identity", "bob/7", "--format", fmt, "--out", out)
        plan = export(*words, "--dry-run")
        assert (plan["dry_run"], plan["identities"], out.exists()) == (True, 1, False)
        assert export(*words)["files"] == len(expected)
        assert {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()} == expected


def test_a_format_of_the_methods_own(adapters: str, tmp_path: Path) -> None:
    summary = export("--adapters", adapters, "--identity", "bob/7", "--format", "short", "--out", tmp_path)
    assert (tmp_path / "bob/7/short.txt").read_text() == "bob/7 bob/7"
    assert (summary["files"], summary["bytes"]) == (1, 11)


def test_files_tell_where_they_come_from(adapters: str, tmp_path: Path) -> None:
    export("--adapters", adapters, "--identity", "ann", "--format", "diffusers", "--out", tmp_path)
    with safe_open(tmp_path / "ann/pytorch_lora_weights.safetensors", framework="pt") as file:
        record = Record.from_json(file.metadata()[RECORD_KEY], "ann")
    assert record.inputs == {"shards": "s#1", "adapters": f"{adapters}#1"}
    assert (record.recipe_hash, record.recipe["method"]["scale"]) == ("r" * 16, 2.0)
    assert (record.facts["identity"], record.facts["method"]) == ("ann", "plain")
    assert record.facts["command"].startswith("python -m jobs export ")


def test_the_backbone_may_have_moved(adapters: str, tmp_path: Path) -> None:
    words = ("--adapters", adapters, "--identity", "ann", "--format", "peft", "--out", tmp_path / "out")
    with pytest.raises(UserError, match="nowhere"):
        export(*words, "--set", f"backbone.path={tmp_path / 'nowhere'}")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_exported_is_refused(adapters: str, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out")
    with pytest.raises(UsageError, match="--adapters is required"):
        export("--format", "peft", *out)
    with pytest.raises(UsageError, match="--format is required: choose from diffusers, kohya, peft, native, short"):
        export("--adapters", adapters, *out)
    with pytest.raises(UsageError, match=r"--format is 'kohia', which method 'plain' has not; did you mean 'kohya'\?"):
        export("--adapters", adapters, "--format", "kohia", *out)
    with pytest.raises(UsageError, match=r"no adapter of 'anna'; did you mean 'ann'\?"):
        export("--adapters", adapters, "--identity", "anna", "--format", "peft", *out)
    with pytest.raises(UsageError, match=r"personalization of 'dan' failed: ValueError: no face"):
        export("--adapters", adapters, "--identity", FAILED, "--format", "peft", *out)
    assert not (tmp_path / "out").exists()


def test_e4ts_adapters_are_no_lora(tmp_path: Path) -> None:
    uri = written(Store(tmp_path / "adapters"), "e4t")
    with pytest.raises(UsageError, match=r"of method 'e4t' are not low-rank.* methods whose adapters are: (?!e4t)"):
        export("--adapters", uri, "--format", "kohya", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
