"""Small BLIP captioners of the real class, saved in their real format: one of random weights, and one that recites."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipImageProcessor

_VOCABULARY = """
[PAD] [UNK] [CLS] [SEP] [MASK] a an the photo portrait of and with woman man person cat young smiling sad tall hair hat
black red beach on at , { }
"""
WORDS = _VOCABULARY.split()
_SIDE, _WIDTH = 32, 48


def save_blip(folder: Path, says: str | None = None, **text: Any) -> Path:
    """A captioner of 32 x 32 images with random weights; with ``says`` it says that, whatever it sees.

    ``text`` overrides fields of the text decoder's configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    tokenizer = BertTokenizer(vocab=str(folder / "vocab.txt"))
    model = BlipForConditionalGeneration(_config(tied=says is None, text=text))
    if says is None:
        _randomize(model)
    else:
        _recite(model, [*tokenizer(says, add_special_tokens=False)["input_ids"], tokenizer.sep_token_id])
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    BlipImageProcessor(size={"height": _SIDE, "width": _SIDE}).save_pretrained(folder)
    return folder


def _config(tied: bool, text: dict[str, Any]) -> BlipConfig:
    """``tied``, as in published models: the head's weights are the word embeddings."""
    shared = {"hidden_size": _WIDTH, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": len(WORDS), "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}  # [DEC], as published
    return BlipConfig(
        text_config={
            **shared,
            **ends,
            "vocab_size": len(WORDS) + 1,
            "encoder_hidden_size": _WIDTH,
            "max_position_embeddings": _WIDTH,
            "tie_word_embeddings": tied,
            **text,
        },
        vision_config={**shared, "image_size": _SIDE, "patch_size": 8},
        tie_word_embeddings=tied,
    )


@torch.no_grad()
def _randomize(model: BlipForConditionalGeneration) -> None:
    """Weights large enough that sentences follow images."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "norm" not in name.lower():
            parameter.normal_(std=0.4, generator=generator)
    model.text_decoder.cls.predictions.bias[: len(WORDS)] += 1.0


@torch.no_grad()
def _recite(model: BlipForConditionalGeneration, ids: list[int]) -> None:
    """Hidden states that know nothing but their position, and a head that says the next word of that position."""
    bert, head = model.text_decoder.bert, model.text_decoder.cls.predictions
    for name, parameter in model.text_decoder.named_parameters():
        parameter.fill_(float("layernorm.weight" in name.lower()))
    bert.embeddings.position_embeddings.weight.copy_(torch.eye(_WIDTH))
    head.transform.dense.weight.copy_(torch.eye(_WIDTH))
    head.decoder.weight[ids, range(len(ids))] += 10.0
