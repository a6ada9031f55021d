"""JSON bodies, read without a guess: nothing cut short, nothing said twice."""

import json
from typing import Any

import msgspec

from predictor.core.problems import InvalidField, InvalidRequest


def parsed(decoder: Any, body: bytes) -> Any:
    """What the msgspec `decoder` makes of `body`.

    Raises:
        InvalidRequest: the bytes are no JSON of the decoder's type.
        InvalidField: one object has a name twice.
    """
    try:
        found = decoder.decode(body)
        # msgspec keeps the last of two equal keys; numbers stay text here, for only the keys matter.
        json.loads(body, object_pairs_hook=_unique, parse_int=str, parse_float=str)
    except RecursionError:
        raise InvalidRequest("body: nested too deeply") from None
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"body: got no UTF-8 at byte {error.start} of a text; allowed: JSON in UTF-8") from None
    except msgspec.DecodeError as error:
        # The error may quote a name that the client chose.
        raise InvalidRequest(f"body: {str(error)[:200]}") from None
    return found


def _unique(pairs: list[tuple[str, Any]]) -> None:
    seen = set()
    for name, _ in pairs:
        if name in seen:
            raise InvalidField.because(name, "got this name twice in one object", "once")
        seen.add(name)
