"""Damaged and hostile versions of a file, as a strategy of hypothesis."""

import copy
import json
import os
from random import Random
from typing import Any

from hypothesis import strategies as st

CASES = int(os.environ.get("POTSTILL_FUZZ_CASES", "100000"))  # of each slow test

# What has confused readers of text, JSON, numbers and paths.
TOKENS = [
    *(b"\0", b"\n", b"\r", b"\t", b'"', b"'", b",", b";", b"\\", b"[", b"]", b"{", b"}", b":"),
    *(b"\xff", b"\xfe\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"\xe4\xb8", b"\xed\xa0\x80", b"\x1b[2J"),
    *(b"NaN", b"Infinity", b"1e999", b"-1", b"0", b"null", b"true", b"[]", b"{}", b'""', b"9" * 20),
    *(b"9" * 5000, b"[" * 20_000, b'{"a":' * 20_000, b"\\ud83d", b"../../x", b"/dev/zero"),
    *(b"\xff\xff\xff\xff\xff\xff\xff\x7f", b"\0\0\0\x80", b"\x80" * 12, b"__label__", b"sep="),
]
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 10**5, 10**9, 2**63, 10**30, 0.5, -1e308, 1e308, "", "x"),
    *("../../x", "/dev/zero", "\0", "\ud83d", "0", [], {}, [[]], [None], [1] * 3, {"a": {}}, ["x"]),
]


def damaged(samples: list[bytes]) -> st.SearchStrategy[bytes]:
    """Bytes that differ from a sample here and there; of JSON, also in its values.

    Each is made of one number that hypothesis draws: drawn one by one, the edits of a case would
    take ten times as long as reading it.
    """
    return st.randoms(use_true_random=True).map(lambda random: one_of(samples, random))


def one_of(samples: list[bytes], random: Random) -> bytes:
    sample = random.choice(samples)
    if random.random() < 0.1:
        return random.randbytes(random.randrange(64))
    if random.random() < 0.6 and is_json(sample):
        return with_other_values(sample, random)
    return edited(sample, random)


def edited(body: bytes, random: Random) -> bytes:
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(body) + 1)
        kind = random.randrange(8)
        if kind == 0:
            body = body[:at]
        elif kind <= 2:
            body = body[:at] + body[at + random.randint(1, 64) :]
        else:
            put = random.choice(TOKENS) if kind <= 5 else random.randbytes(random.randint(1, 8))
            body = body[:at] + put + body[at + len(put) * random.randrange(2) :]
    return body


def with_other_values(body: bytes, random: Random) -> bytes:
    value = json.loads(body)
    for _ in range(random.randint(1, 3)):
        if not (found := places(value)):
            break
        container, key = random.choice(found)
        if random.random() < 0.1:
            del container[key]
        else:
            container[key] = copy.deepcopy(random.choice(VALUES))
    return json.dumps(value).encode()


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return every container of a JSON value with each of its keys."""
    found: list[tuple[Any, Any]] = []
    keys: Any = ()
    if isinstance(value, dict):
        keys = value
    elif isinstance(value, list):
        keys = range(len(value))
    for key in list(keys)[:20]:
        found += [(value, key), *places(value[key])]
    return found


def is_json(body: bytes) -> bool:
    try:
        return isinstance(json.loads(body), dict | list)
    except (ValueError, RecursionError):
        return False
