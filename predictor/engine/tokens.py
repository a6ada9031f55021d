"""CLIP's tokens without transformers, whose import costs more than a cold start may.

Byte-level BPE with `</w>` at the end of words (Sennrich et al., arXiv 1508.07909; openai/CLIP
`simple_tokenizer.py`), run by the same `tokenizers` library that transformers itself runs on.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Regex, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE

from predictor.core.request import FixedToken, TokenRules
from predictor.engine.folder import FolderError, read_json

WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
CLIP_LENGTH = 77
UNKNOWN_LENGTH = int(1e30)  # what transformers writes into a folder whose length it was never told
ROLES = {
    "bos_token": "<|startoftext|>",
    "eos_token": "<|endoftext|>",
    "unk_token": "<|endoftext|>",
    "pad_token": "<|endoftext|>",
}


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
    """One tokenizer folder of a model; `rules` are for those who count without it, None where that cannot be done."""

    backend: Backend
    begin: int
    end: int
    padding: int
    max_length: int
    rules: TokenRules | None

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """From tokenizer_config.json and either tokenizer.json or vocab.json and merges.txt.

        Raises:
            FolderError: naming the file that is missing or wrong.
        """
        config = read_json(folder / "tokenizer_config.json")
        length = config.get("model_max_length", UNKNOWN_LENGTH)
        if length == UNKNOWN_LENGTH:
            length = CLIP_LENGTH
        if not isinstance(length, int) or not 2 < length <= 10_000:
            file = folder / "tokenizer_config.json"
            raise FolderError(f"{file}: model_max_length: got {length!r}; allowed: whole numbers from 3 to 10000")
        whole = read_json(folder / "tokenizer.json") if (folder / "tokenizer.json").is_file() else None
        added = _added_tokens(folder, config, whole)
        roles = _roles(folder, config, added)
        backend = _backend(folder, whole, roles["unk_token"].content)
        ids: dict[str, int] = {}
        for role, token in roles.items():
            id = backend.token_to_id(token.content)
            if id is None:
                raise FolderError(f"{folder}: the vocabulary lacks the special token {token.content}, its {role}")
            ids[role] = id
        # Found in a prompt, these are tokens and not text: as in transformers.
        backend.add_tokens(added)
        backend.add_special_tokens(list(roles.values()))
        rules = _rules(length - 2, _merges(folder, whole), [*added, *roles.values()])
        return cls(backend, ids["bos_token"], ids["eos_token"], ids["pad_token"], length, rules)

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


def _backend(folder: Path, whole: dict[str, Any] | None, unknown: str) -> Backend:
    """CLIP's pipeline over the folder's vocabulary; tokenizer.json comes first, as in transformers."""
    backend = Backend(_model(folder, whole, unknown))
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


def _model(folder: Path, whole: dict[str, Any] | None, unknown: str) -> BPE:
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    try:
        if whole is None:
            return BPE.from_file(str(vocabulary), str(merges), end_of_word_suffix="</w>", unk_token=unknown)
        pairs = []
        for merge in whole["model"]["merges"]:
            left, right = merge.split(" ") if isinstance(merge, str) else merge
            pairs.append((left, right))
        return BPE(whole["model"]["vocab"], pairs, end_of_word_suffix="</w>", unk_token=unknown)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a merge that spells no token makes the library panic, which is no Exception
        if whole is not None:
            raise FolderError(f"{folder / 'tokenizer.json'}: not a CLIP vocabulary: {error!r}") from None
        read_json(vocabulary)  # the library does not say which of the two files it means
        if not merges.is_file():
            raise FolderError(f"{merges}: No such file or directory") from None
        raise FolderError(f"{vocabulary}, {merges.name}: not a CLIP vocabulary: {error}") from None


def _merges(folder: Path, whole: dict[str, Any] | None) -> str:
    """The merges of a model that could be opened, a line each."""
    if whole is not None:
        return "\n".join(merge if isinstance(merge, str) else " ".join(merge) for merge in whole["model"]["merges"])
    text = (folder / "merges.txt").read_text(encoding="utf-8")
    return (text.partition("\n")[2] if text.startswith("#version") else text).rstrip("\n")


def _rules(limit: int, merges: str, tokens: list[AddedToken]) -> TokenRules | None:
    """None where a token depends on what stands around it, as no published model's does."""
    if any(token.single_word or token.content != token.content.strip() for token in tokens):
        return None
    # Of those with one text the first counts.
    first = {token.content: token for token in reversed(tokens)}
    added = [FixedToken(content, token.normalized) for content, token in first.items()]
    return TokenRules(limit, merges, tuple(added))


def _added_tokens(folder: Path, config: dict[str, Any], whole: dict[str, Any] | None) -> list[AddedToken]:
    """Tokens that are matched before the vocabulary is, in order of their ids."""
    if "added_tokens_decoder" in config:
        file, listed = folder / "tokenizer_config.json", config["added_tokens_decoder"]
    elif whole is not None:
        file, listed = folder / "tokenizer.json", whole.get("added_tokens", [])
    else:
        return []
    try:
        pairs = listed.items() if isinstance(listed, dict) else [(token["id"], token) for token in listed]
        by_id = {int(id): token for id, token in pairs}
    except (TypeError, ValueError, KeyError):
        raise FolderError(f"{file}: added tokens: got {str(listed)[:100]}; expected tokens with ids") from None
    return [_token(file, f"added token {id}", by_id[id]) for id in sorted(by_id)]


def _roles(folder: Path, config: dict[str, Any], added: list[AddedToken]) -> dict[str, AddedToken]:
    """The token of each role; its flags decide, for one, whether `<|ENDOFTEXT|>` in a prompt means the token."""
    file, values = folder / "tokenizer_config.json", config
    # Folders written since transformers 4.34 have all in the one file; it then no longer reads the other.
    if "added_tokens_decoder" not in config and (folder / "special_tokens_map.json").is_file():
        file = folder / "special_tokens_map.json"
        values = {**config, **read_json(file)}
    known = {token.content: token for token in added}
    roles = {}
    for role, usual in ROLES.items():
        token = _token(file, role, values.get(role) or usual)
        roles[role] = known.get(token.content, token)
    return roles


def _token(file: Path, name: str, value: Any) -> AddedToken:
    """A token from its text, or from the object around it that also holds its flags."""
    if isinstance(value, str):
        return AddedToken(value, special=True, normalized=False)
    try:
        flags = {flag: value[flag] for flag in ("lstrip", "rstrip", "single_word", "normalized") if flag in value}
        return AddedToken(value["content"], special=value.get("special", True), **flags)
    except (TypeError, KeyError, AttributeError):
        raise FolderError(f"{file}: {name}: got {str(value)[:100]}; expected text, or text with flags") from None
