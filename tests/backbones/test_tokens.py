"""Prompts to ids, and embeddings spliced in place of the placeholder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from e4t_core.adapters.token_splice import token_splice
from e4t_core.backbones import ClipModel, load_backbone
from e4t_core.backbones.stable_diffusion import StableDiffusionBackbone
from e4t_core.bundled import bundled_folder
from e4t_core.bundled.build_tokenizer import FOLDERS, WORDS, train, write
from e4t_core.errors import UsageError
from tests.backbones.conftest import RANDOM, normal


@pytest.mark.parametrize(
    "prompt", ["a photo of {}", "{}", "{}, on the beach", "A Photo of {}'s hair", "(({}))", "x{}y"]
)
def test_the_placeholder_is_one_token_anywhere(backbone: StableDiffusionBackbone, prompt: str) -> None:
    ids = backbone.tokenize([prompt.replace("{}", backbone.placeholder)])
    assert ids.shape == (1, backbone.max_tokens)
    assert int((ids == backbone.placeholder_id).sum()) == 1


def test_the_placeholder_is_configurable() -> None:
    backbone = load_backbone(RANDOM.model_copy(update={"placeholder": "<somebody>"}))
    assert int((backbone.tokenize(["a photo of <somebody>"]) == backbone.placeholder_id).sum()) == 1
    assert int((backbone.tokenize(["a photo of <e4t>"]) == backbone.placeholder_id).sum()) == 0


def test_a_cut_that_drops_the_placeholder_is_refused(backbone: StableDiffusionBackbone) -> None:
    long = "a photo " * backbone.max_tokens
    with pytest.raises(UsageError, match="would drop <e4t>"):
        backbone.tokenize(["a cat", long + "of <e4t>"])
    with pytest.raises(UsageError, match="would drop <e4t>"):
        backbone.tokenize(["<e4t> " + long + "of <e4t>"])
    kept = backbone.tokenize(["<e4t> " + long, long])
    assert (kept == backbone.placeholder_id).sum(dim=1).tolist() == [1, 0]


def test_splicing_a_words_own_embedding_gives_that_words_states(backbone: StableDiffusionBackbone) -> None:
    words = ("cat", "dog")
    vectors = torch.stack([backbone.token_embedding(word) for word in words])
    spliced = backbone.encode_text(backbone.tokenize(["a photo of <e4t> in the snow"] * 2), vectors)
    plain = backbone.encode_text(backbone.tokenize([f"a photo of {word} in the snow" for word in words]))
    torch.testing.assert_close(spliced, plain)


def test_each_row_gets_its_own_gradient(backbone: StableDiffusionBackbone) -> None:
    vectors = normal(3, backbone.text_width).requires_grad_()
    states = backbone.encode_text(backbone.tokenize(["<e4t>", "a cat", "<e4t> and <e4t>"]), vectors)
    states[:, 2].square().sum().backward()
    assert vectors.grad is not None
    assert (vectors.grad.abs().sum(dim=1) > 0).tolist() == [True, False, True]


def test_prompts_without_the_placeholder_are_untouched_by_a_splice(backbone: StableDiffusionBackbone) -> None:
    ids = backbone.tokenize(["a cat", "a dog"])
    assert torch.equal(backbone.encode_text(ids, normal(2, backbone.text_width)), backbone.encode_text(ids))


def test_the_table_and_the_hooks_are_as_before(backbone: StableDiffusionBackbone) -> None:
    table = backbone.token_table.clone()
    embedding = backbone.text_encoder.get_input_embeddings()
    with (
        pytest.raises(RuntimeError),
        token_splice(embedding, backbone.placeholder_id, normal(5, backbone.text_width)),
    ):
        embedding(backbone.tokenize(["<e4t>", "a"]))  # 5 vectors for 2 rows
    assert not embedding._forward_hooks
    assert not embedding._forward_pre_hooks
    assert torch.equal(backbone.token_table, table)


def test_a_placeholder_without_an_embedding_is_an_error(backbone: StableDiffusionBackbone) -> None:
    with pytest.raises(ValueError, match="<e4t>"):
        backbone.encode_text(backbone.tokenize(["a photo of <e4t>"]))


def test_the_embedding_of_a_word_is_the_mean_of_its_pieces(backbone: StableDiffusionBackbone) -> None:
    ids = backbone.tokenizer("zebra", add_special_tokens=False)["input_ids"]
    assert len(ids) > 1
    torch.testing.assert_close(backbone.token_embedding("zebra"), backbone.token_table[ids].mean(0))
    for bad in ("", "<e4t>"):
        with pytest.raises(UsageError):
            backbone.token_embedding(bad)


def test_every_word_of_the_tiny_vocabulary_is_one_token(backbone: StableDiffusionBackbone) -> None:
    lengths = {word: len(backbone.tokenizer(word, add_special_tokens=False)["input_ids"]) for word in WORDS}
    assert [word for word, length in lengths.items() if length != 1] == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_shipped_vocabulary_is_what_its_builder_writes(folder: str, tmp_path: Path) -> None:
    write(tmp_path, *train())
    top, _, rest = folder.partition("/")
    for name in ("vocab.json", "merges.txt"):
        assert (bundled_folder(top) / rest / name).read_bytes() == (tmp_path / name).read_bytes()


def test_the_tables_have_a_row_for_every_word(backbone: StableDiffusionBackbone, clip: ClipModel) -> None:
    words = len(train()[0])
    assert len(backbone.token_table) == backbone.placeholder_id == words
    assert clip.model.vocab_size == words
