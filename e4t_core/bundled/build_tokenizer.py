"""Builds the vocabulary of the tiny stack: CLIP's own scheme, trained until each word below is one token.

    python -m e4t_core.bundled.build_tokenizer

writes ``vocab.json`` and ``merges.txt`` into the bundled folders that carry a small tokenizer. Any other text still
encodes, byte by byte, because all 256 bytes are in the vocabulary.
"""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

from tokenizers import pre_tokenizers

from e4t_core.bundled import bundled_folder

FOLDERS = ("tiny/tokenizer", "clip_tiny")
BOS, EOS, WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"

_TEXT = """
a an the of in on at by with and or without in front behind under over near his her its their is are was has wearing
looking standing sitting lying walking holding playing sleeping smiling laughing frowning made to from as one two three
four five six this that very some many no not style styled subject concept background foreground scene place texture
photo photograph picture portrait image drawing sketch pencil charcoal ink line art artwork painting oil watercolor
acrylic canvas brush stroke strokes palette pixel pixelated retro game sprite mosaic poster print illustration cartoon
comic manga anime rendering rendered depiction close up cropped full body good bad bright dark clean cool nice weird
large small big tiny long short medium tall wide narrow thin thick round oval square heart triangular pointed flat
rare old young adult child new plain simple detailed colorful soft hard rough smooth shiny matte striped spotted
checkered dotted solid patterned tabby calico tuxedo siamese fluffy furry
face head person people man woman boy girl human hair eyes eye brows eyebrows nose mouth lips ears ear chin jaw cheeks
skin beard mustache moustache goatee stubble freckles mole scar glasses sunglasses hat cap santa beanie crown earrings
necklace scarf tie shirt jacket sweater hoodie dress coat clothes bald curly wavy straight spiky bob ponytail bun braids
afro fringe bangs parted messy expression happy sad angry surprised neutral serious profile left right side view light
lighting shadow sunny cloudy warm cold day night morning evening sunset
black white gray grey brown red green blue yellow orange purple pink violet cyan teal turquoise magenta golden gold
silver blond blonde ginger auburn beige tan olive navy maroon pale fair light dark cream ivory hazel amber crimson
beach sea ocean sand waves snow snowy winter mountain mountains forest trees tree woods city town street buildings
lights skyline park garden grass field desert river lake sky clouds sun moon stars rain room wall studio kitchen office
times jungle space moonlit
cat kitten dog puppy animal pet bird fish horse rabbit bear tail whiskers paws fur
object cup mug bowl bottle vase plate ball box chair table lamp clock house tower car truck bus train boat ship plane
bicycle shoe boot bag backpack book key phone camera guitar drum piano umbrella balloon toy robot doll teddy flower
leaf apple banana pear orange lemon cherry cake bread pizza star ring
calm grinning winking yawning deep bronze olive hoop studs quiff locs dreadlocks pigtails mohawk headscarf headband
platinum receding buzz cut shaved shoulder length mane copper chestnut strawberry marled speckled patch patched lean
stained glass window latte funko pop pointillism impressionism ukiyo e cubism
sks
"""
WORDS = sorted(set(_TEXT.split()))


def train() -> tuple[dict[str, int], list[str]]:
    """(vocabulary in CLIP's order: bytes, bytes that end a word, merges, the two special tokens; merges)."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = _merges(WORDS)
    tokens = [*alphabet, *(a + WORD_END for a in alphabet), *(left + right for left, right in merges), BOS, EOS]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    return vocab, [f"{left} {right}" for left, right in merges]


def _merges(words: list[str]) -> list[tuple[str, str]]:
    """Byte-pair merges until every word is one piece: the commonest pair first, ties by spelling.

    The library's trainer breaks ties by hash order, so its files would differ from run to run.
    """
    pieces = [[*word[:-1], word[-1] + WORD_END] for word in words]
    merges = []
    while any(len(word) > 1 for word in pieces):
        counts = Counter(pair for word in pieces for pair in pairwise(word))
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        pieces = [_merge(word, best) for word in pieces]
    return merges


def _merge(word: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    for piece in word:
        if out and (out[-1], piece) == pair:
            out[-1] += piece
        else:
            out.append(piece)
    return out


def write(folder: Path, vocab: dict[str, int], merges: list[str]) -> None:
    """Save in the layout that ``CLIPTokenizer.from_pretrained`` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    for name in FOLDERS:
        top, _, rest = name.partition("/")
        write(bundled_folder(top) / rest, *train())
