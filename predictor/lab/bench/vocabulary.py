"""A CLIP tokenizer of any size without CLIP's word list: every byte, then merges that spell short words.

The files have CLIP's format (byte-level BPE, `</w>` at a word's end; Radford et al. 2021, section 2.4), and the ids
have its order: 256 bytes, the same 256 at a word's end, one id per merge, `<|startoftext|>`, `<|endoftext|>`.
"""

import itertools
import json
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Final

START: Final = "<|startoftext|>"
END: Final = "<|endoftext|>"
TOKENS: Final = 77  # CLIP's context length


def write_tokenizer(folder: Path, size: int, pad_token: str) -> None:
    """Write the files of a slow CLIPTokenizer with `size` ids into `folder`.

    Raises:
        ValueError: `size` has no room for the bytes, or is more than this scheme can spell.
    """
    spelled = merges(size - 514)
    characters = byte_characters()
    words = [*characters, *(c + "</w>" for c in characters), *(a + b for a, b in spelled), START, END]
    _write_json(folder / "vocab.json", {word: id for id, word in enumerate(words)})
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(f"{a} {b}" for a, b in spelled), ""]))
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": pad_token}
    _write_json(folder / "special_tokens_map.json", special)
    _write_json(
        folder / "tokenizer_config.json",
        {
            **special,
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": TOKENS,
            "do_lower_case": True,
            "add_prefix_space": False,
            "errors": "replace",
        },
    )


def merges(count: int) -> list[tuple[str, str]]:
    """The first `count` merges: all words and beginnings of two, then of three letters, then pairs of any bytes."""
    if not 0 <= count <= 65536:
        raise ValueError(f"vocabulary: got {count} merges; allowed: 0 to 65536")
    return list(itertools.islice(_all_merges(), count))


def byte_characters() -> list[str]:
    """One printable character per byte, in CLIP's order: the printable bytes as themselves, then the others."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(b) for b in printable] + [chr(0x100 + n) for n in range(256 - len(printable))]


def _all_merges() -> Iterator[tuple[str, str]]:
    letters = list(string.ascii_lowercase)
    pairs = [a + b for a in letters for b in letters]
    for end in ("", "</w>"):
        yield from ((pair[0], pair[1] + end) for pair in pairs)
    for end in ("", "</w>"):
        yield from ((pair, letter + end) for pair in pairs for letter in letters)
    characters = byte_characters()
    for a, b in itertools.product(characters, characters):
        if not (a in letters and b in letters):
            yield a, b + "</w>"


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False))
