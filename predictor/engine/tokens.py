"""CLIP's tokens without transformers, whose import costs more than a cold start may.

Byte-level BPE with `</w>` at the end of words (Sennrich et al., arXiv 1508.07909; openai/CLIP
`simple_tokenizer.py`), run by the same `tokenizers` library that transformers itself runs on.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE

from predictor.engine.folder import FolderError, read_json

WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class PromptTooLong(ValueError):
    """The text has `used` tokens, and the model reads `limit`."""

    def __init__(self, used: int, limit: int) -> None:
        super().__init__(f"{used} tokens; at most {limit} fit")
        self.used = used
        self.limit = limit


@dataclass(frozen=True)
class Encoded:
    """`ids` int64 [max_length]: begin, content, end, padding. `used` counts the whole text's content tokens."""

    ids: NDArray[np.int64]
    used: int


@dataclass(frozen=True)
class Tokenizer:
    """One tokenizer folder of a model."""

    backend: Backend
    begin: int
    end: int
    padding: int
    max_length: int

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """From vocab.json and merges.txt, or tokenizer.json; raises FolderError naming the file that is wrong."""
        config = read_json(folder / "tokenizer_config.json")
        named = folder / "special_tokens_map.json"
        special = {**config, **(read_json(named) if named.is_file() else {})}
        begin = _content(special.get("bos_token"), "<|startoftext|>")
        end = _content(special.get("eos_token"), "<|endoftext|>")
        padding = _content(special.get("pad_token"), end)
        backend = _backend(folder, _content(special.get("unk_token"), end))
        ids = {token: backend.token_to_id(token) for token in (begin, end, padding)}
        for token, id in ids.items():
            if id is None:
                raise FolderError(f"{folder}: the vocabulary lacks the special token {token}")
        # Found in a prompt, these are tokens and not text: as in transformers.
        backend.add_special_tokens([begin, end, padding])
        length = config.get("model_max_length", 77)
        return cls(backend, ids[begin], ids[end], ids[padding], max_length=length if length < 10_000 else 77)

    def encode(self, text: str, truncate: bool = False) -> Encoded:
        """The text's tokens; raises PromptTooLong unless they fit or `truncate` allows to cut them."""
        content = self.backend.encode(text, add_special_tokens=False).ids
        limit = self.max_length - 2
        if len(content) > limit and not truncate:
            raise PromptTooLong(len(content), limit)
        ids = np.full(self.max_length, self.padding, np.int64)
        kept = [self.begin, *content[:limit], self.end]
        ids[: len(kept)] = kept
        return Encoded(ids, len(content))


def _backend(folder: Path, unknown: str) -> Backend:
    vocabulary, merges, whole = folder / "vocab.json", folder / "merges.txt", folder / "tokenizer.json"
    try:
        if not vocabulary.is_file() and whole.is_file():
            backend = Backend.from_file(str(whole))
            backend.no_truncation()
            backend.no_padding()
            return backend
        model = BPE.from_file(str(vocabulary), str(merges), end_of_word_suffix="</w>", unk_token=unknown)
    except Exception as error:  # the library raises nothing more particular
        broken = whole if not vocabulary.is_file() and whole.is_file() else f"{vocabulary}, {merges.name}"
        raise FolderError(f"{broken}: not a CLIP vocabulary: {error}") from None
    backend = Backend(model)
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return backend


def _content(token: Any, default: str) -> str:
    """A special token's text; files hold either the text or an object around it."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else default
