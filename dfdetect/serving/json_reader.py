"""The JSON that TensorFlow Serving reads: more words and deeper nesting than Python's.

Python's own scanner is tried first. What it does not know (`Inf`, `-NaN`), and nesting
of any depth, is read by a loop, which lets other threads run meanwhile.
"""

import json
import json.decoder
import math
import re
from typing import Any, NoReturn

_WORDS = {
    "true": True,
    "false": False,
    "null": None,
    **dict.fromkeys(("NaN", "-NaN"), math.nan),
    **dict.fromkeys(("Inf", "Infinity"), math.inf),
    **dict.fromkeys(("-Inf", "-Infinity"), -math.inf),
}
_WORD = re.compile("|".join(sorted(_WORDS, key=len, reverse=True)))
_NUMBER = re.compile(r"(-?(?:0|[1-9][0-9]*))(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_BLANKS = re.compile(r"[ \t\r\n]*")
_UNKNOWN_WORDS = re.compile(r"\bInf\b|-NaN\b")
_MAYBE_HUGE = re.compile(r"[eE]\+?[0-9]{3}|[0-9]{300}")
_HUGE = "Number too big to be stored in double."

_read_string = json.decoder.scanstring  # type: ignore[attr-defined]

# Of an unsigned integer of 64 bits; a longer one is a float.
_MOST_DIGITS = 20


def read_json(text: str, patiently: bool = False, has_many: bool = False) -> Any:
    """Reads the first value of a text; what follows it is ignored.

    Of keys that are there twice the first counts.

    Args:
        text: JSON.
        patiently: Whether other threads are to run meanwhile, which takes longer.
        has_many: Whether there may be very many numbers.

    Raises:
        json.JSONDecodeError: It is no JSON.
    """
    start = _skip_blanks(text, 0)
    if patiently:
        return _read_by_steps(text, start)
    # A function of Python's for each of millions of numbers takes too long.
    is_plain = has_many and not _MAYBE_HUGE.search(text)
    decoder = json.JSONDecoder(
        object_pairs_hook=_first_wins, parse_float=float if is_plain else _to_float
    )
    try:
        return decoder.raw_decode(text, start)[0]
    except RecursionError:
        return _read_by_steps(text, start)
    except json.JSONDecodeError:
        if not _UNKNOWN_WORDS.search(text):
            raise
        return _read_by_steps(text, start)
    except ValueError as error:  # Of a number: Python's have no place either.
        raise json.JSONDecodeError(_HUGE, text, start) from error


def _first_wins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        found = {}
        for key, value in pairs:
            found.setdefault(key, value)
    return found


def _to_float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(_HUGE)
    return value


def _skip_blanks(text: str, pos: int) -> int:
    found = _BLANKS.match(text, pos)
    assert found
    return found.end()


def _read_by_steps(text: str, pos: int) -> Any:
    """Reads the value at a position, without recursion."""
    open_ones: list[Any] = []
    keys: list[str] = []
    while True:
        pos = _skip_blanks(text, pos)
        value: Any
        if text.startswith(("[", "{"), pos):
            value = [] if text[pos] == "[" else {}
            pos = _skip_blanks(text, pos + 1)
            if not text.startswith("]" if type(value) is list else "}", pos):
                open_ones.append(value)
                if type(value) is dict:
                    pos = _read_key(text, pos, keys)
                continue
            pos += 1
        elif text.startswith('"', pos):
            value, pos = _read_string(text, pos + 1, True)
        else:
            value, pos = _read_scalar(text, pos)
        # The value is complete, and with it perhaps what it lies in.
        while True:
            if not open_ones:
                return value
            holder = open_ones[-1]
            if type(holder) is list:
                holder.append(value)
            else:
                holder.setdefault(keys.pop(), value)
            pos = _skip_blanks(text, pos)
            if text.startswith(",", pos):
                pos += 1
                if type(holder) is dict:
                    pos = _read_key(text, _skip_blanks(text, pos), keys)
                break
            if not text.startswith("]" if type(holder) is list else "}", pos):
                _fail("Missing a comma or a closing bracket.", text, pos)
            value = open_ones.pop()
            pos += 1


def _read_key(text: str, pos: int, keys: list[str]) -> int:
    """Puts the key at a position to the others; returns where its value begins."""
    if not text.startswith('"', pos):
        _fail("Missing a name for object member.", text, pos)
    key, pos = _read_string(text, pos + 1, True)
    keys.append(key)
    pos = _skip_blanks(text, pos)
    if not text.startswith(":", pos):
        _fail("Missing a colon after a name of object member.", text, pos)
    return pos + 1


def _read_scalar(text: str, pos: int) -> tuple[Any, int]:
    if word := _WORD.match(text, pos):
        return _WORDS[word[0]], word.end()
    number = _NUMBER.match(text, pos)
    if not number:
        _fail("Invalid value.", text, pos)
    whole, fraction, exponent = number.groups()
    if fraction or exponent or len(whole) > _MOST_DIGITS:
        try:
            return _to_float(number[0]), number.end()
        except ValueError:
            _fail(_HUGE, text, pos)
    return int(whole), number.end()


def _fail(message: str, text: str, pos: int) -> NoReturn:
    raise json.JSONDecodeError(message, text, pos)
