"""A byte-level BPE vocabulary in the file format of CLIP's tokenizer, learned from a list of words.

Source: Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units", with CLIP's conventions
(github.com/openai/CLIP, clip/simple_tokenizer.py): bytes are written as printable characters, a word's last symbol
carries `</w>`, and ids run: 256 bytes, the same 256 with `</w>`, one per merge, start, end.
"""

import json
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Final

START: Final = "<|startoftext|>"
END: Final = "<|endoftext|>"
TOKENS: Final = 77
"""Length of every encoded prompt, as in CLIP."""


def byte_symbols() -> list[str]:
    """The printable character for each byte, in CLIP's order: printable bytes first, then the others."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + rank) for rank in range(len(others))]


def learn_merges(words: list[str]) -> list[tuple[str, str]]:
    """Merges, most frequent pair first, until every word (ASCII, lower case) is a single symbol."""
    spelled = [[*word[:-1], word[-1] + "</w>"] for word in words]
    merges: list[tuple[str, str]] = []
    while pairs := Counter(pair for symbols in spelled for pair in pairwise(symbols)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        spelled = [_merge(symbols, best) for symbols in spelled]
    return merges


def _merge(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    at = 0
    while at < len(symbols):
        if tuple(symbols[at : at + 2]) == pair:
            merged.append("".join(pair))
            at += 2
        else:
            merged.append(symbols[at])
            at += 1
    return merged


def write_tokenizer(words: list[str], folder: Path) -> None:
    """Write `vocab.json`, `merges.txt`, `tokenizer_config.json` and `special_tokens_map.json` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    merges = learn_merges(words)
    letters = byte_symbols()
    entries = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges), START, END]
    vocabulary = {entry: rank for rank, entry in enumerate(entries)}
    _write_json(folder / "vocab.json", vocabulary)
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
    _write_json(folder / "special_tokens_map.json", special)
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": TOKENS, "do_lower_case": True, **special}
    _write_json(folder / "tokenizer_config.json", config)


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
