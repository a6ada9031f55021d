"""How many tokens a text has for CLIP, counted without the library that makes them.

Whoever stands in front of a sleeping GPU refuses with this what the engine would refuse (`engine/tokens.py`): NFC, one
space for white space, lower case, words, their bytes, and merges of the pair that comes first (Sennrich et al., arXiv
1508.07909; openai/CLIP `simple_tokenizer.py`), in the order in which the `tokenizers` library merges.

The engine has the last word. Where a text cannot be counted here (it is too long for that, or has a character that this
Python's Unicode does not know), it is only said how many tokens there are at least.
"""

import functools
import heapq
import re
from collections.abc import Iterator
from unicodedata import category, normalize

from predictor.core.request import GenerationRequest, TokenRules, too_many_tokens

SPACES = re.compile("[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")  # \s of the library
# Of a text in which numbers are 0, so that \w without \d and _ is \p{L}, and \d is \p{N}.
WORDS = re.compile(r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|(?:[^ \w]|_)+")
# The byte-level part of the library has a rule for words of its own, which knows of no such tokens.
SPLIT = {f"<|{name}|>": ("<|", name, "|>") for name in ("startoftext", "endoftext")}
PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
# How merges spell bytes: printable ones as themselves, the others from U+0100 on.
SPELLED = {byte: 0x100 + place for place, byte in enumerate(sorted({*range(256)} - {*PRINTABLE}))}
END = "</w>"
READ = 8192  # characters of one text, with white space as one
REMEMBERED, LONGEST_REMEMBERED = 4096, 32  # words, and characters of a word


def check_length(request: GenerationRequest, tokenizers: tuple[TokenRules, ...]) -> None:
    """Return if the prompts fit, as far as can be told by the model's tokenizers.

    Raises:
        InvalidField: as the engine would; where not all was counted, with "at least" before the number.
    """
    if request.truncate_prompt:
        return
    for name, text in (("prompt", request.prompt), ("negative_prompt", request.negative_prompt)):
        # A token has one character at least, and reading merges takes time and memory.
        if text.isascii() and all(len(text) <= rules.limit for rules in tokenizers):
            continue
        for counter in counters(tokenizers):
            used, exact = counter.count(text)
            if used > counter.limit:
                raise too_many_tokens(name, used if exact else f"at least {used}", counter.limit)


@functools.lru_cache(maxsize=1)
def counters(tokenizers: tuple[TokenRules, ...]) -> tuple["Counter", ...]:
    """One for each tokenizer; those with the same merges share them."""
    found: list[Counter] = []
    ranks: dict[str, int] = {}
    for rules in tokenizers:
        if rules.merges is not None:
            ranks = {merge: rank for rank, merge in enumerate(rules.merges.split("\n"))}
        found.append(Counter(rules, ranks))
    return tuple(found)


class Counter:
    """Counts the tokens of one tokenizer; `ranks` has the place of each "left right", the first to be merged at 0."""

    def __init__(self, rules: TokenRules, ranks: dict[str, int]) -> None:
        self.limit = rules.limit
        self._ranks = ranks
        self._raw = _any_of(token.content for token in rules.added if not token.normalized)
        self._normal = _any_of(_normal(token.content) for token in rules.added if token.normalized)
        lengths = [len(merge) - 1 - len(END) * merge.endswith(END) for merge in ranks]
        contents = [token.content for token in rules.added]
        lengths += [len(form.encode()) for content in contents for form in (content, _normal(content))]
        self._longest = max(lengths, default=1)  # bytes of a token
        self._remembered = functools.lru_cache(maxsize=REMEMBERED)(self._merged)

    def count(self, text: str) -> tuple[int, bool]:
        """How many tokens, and whether that is all of them; more than `limit` are only counted so far as is cheap."""
        read = SPACES.sub(" ", text)[:READ]
        normal = _normal(read)
        known = "".join(character for character in normal if category(character) != "Cn")
        least = -(-len(known.replace(" ", "").encode()) // self._longest)
        if least > self.limit or len(read) == READ or len(known) < len(normal):
            return least, False
        return sum(self._of_piece(piece) for piece in _apart(self._raw, text)), True

    def _of_piece(self, text: str | None) -> int:
        """Of a text without tokens that are found in it as it came; None is such a token."""
        if text is None:
            return 1
        used = 0
        for piece in _apart(self._normal, _normal(text)):
            used += 1 if piece is None else sum(self._of_word(word) for word in _words(piece))
        return used

    def _of_word(self, word: str) -> int:
        return self._remembered(word) if len(word) <= LONGEST_REMEMBERED else self._merged(word)

    def _merged(self, word: str) -> int:
        """Tokens of one word, as the library's `Word::merge_all` leaves them; takes O(n log n)."""
        symbols = list(word.encode().decode("latin-1").translate(SPELLED))
        symbols[-1] += END
        following, before = list(range(1, len(symbols) + 1)), list(range(-1, len(symbols) - 1))
        end, left = len(symbols), len(symbols)
        waiting: list[tuple[int, int, str]] = []  # rank, place of the left symbol, both together

        def consider(place: int) -> None:
            one, other = symbols[place], symbols[following[place]]
            if (rank := self._ranks.get(f"{one} {other}")) is not None:
                heapq.heappush(waiting, (rank, place, one + other))

        for place in range(end - 1):
            consider(place)
        while waiting:
            _, place, both = heapq.heappop(waiting)
            right = following[place]
            # Of the pair that was found, one or both may have become part of another symbol since.
            if not symbols[place] or right == end or symbols[place] + symbols[right] != both:
                continue
            if f"{symbols[place]} {symbols[right]}" not in self._ranks:
                continue
            symbols[place], symbols[right] = both, ""
            following[place] = following[right]
            if following[right] != end:
                before[following[right]] = place
                consider(place)
            if before[place] >= 0:
                consider(before[place])
            left -= 1
        return left


def _normal(text: str) -> str:
    """NFC, one space for white space, and lower case letter by letter: a final sigma is like any other."""
    text = SPACES.sub(" ", normalize("NFC", text))
    return text.lower() if text.isascii() else "".join(character.lower() for character in text)


def _words(text: str) -> Iterator[str]:
    """The words of a normal text."""
    shape = text
    if not text.isascii():
        shape = "".join("0" if category(character)[0] == "N" else character for character in text)
    for match in WORDS.finditer(shape):
        word = text[match.start() : match.end()]
        yield from SPLIT.get(word, (word,))


def _any_of(contents: Iterator[str]) -> re.Pattern[str] | None:
    """The longest of these that begins at a place; None if there are none."""
    longest_first = sorted(filter(None, contents), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))) if longest_first else None


def _apart(tokens: re.Pattern[str] | None, text: str) -> Iterator[str | None]:
    """The text in pieces, with None in the place of each token."""
    begin = 0
    for match in tokens.finditer(text) if tokens else ():
        yield text[begin : match.start()]
        yield None
        begin = match.end()
    yield text[begin:]
