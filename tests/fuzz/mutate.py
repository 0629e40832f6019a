"""Inputs that are nearly right: changes of known ones, drawn from a seed."""

import random
from collections.abc import Sequence

BYTES = (0x00, 0x20, 0x22, 0x2C, 0x3B, 0x5C, 0x7F, 0x80, 0x90, 0x91, 0x9F, 0xA0, 0xC0, 0xC4, 0xCB, 0xCF, 0xD9)
"""Bytes that begin or end something: in MessagePack, in JSON, in lines of text."""

WORDS = (
    b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00",
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\x00\x01\x00\x00",
    b"\xc1",
    b"-1",
    b"1e999",
    b"\\ud800",
    b"null",
    b"\xc3\xa9",
    b"\xed\xa0\x80",
    b"[[[[[[[[",
    b"\r\n",
    b"0" * 40,
)

LEN_MAX = 4096


def mutated(inputs: Sequence[bytes], draw: random.Random) -> bytes:
    """One of ``inputs`` with some changes; at most `LEN_MAX` bytes."""
    data = bytearray(draw.choice(inputs))
    for _ in range(1 + draw.getrandbits(2)):
        at = draw.randrange(len(data) + 1)
        end = min(len(data), at + 1 + draw.getrandbits(draw.randrange(1, 8)))
        match draw.randrange(8):
            case 0 if at < len(data):
                data[at] ^= 1 << draw.randrange(8)
            case 1 if at < len(data):
                data[at] = draw.choice(BYTES)
            case 2:
                data[at:at] = draw.choice(WORDS)
            case 3:
                del data[at:end]
            case 4:
                data[at:at] = data[at:end] * draw.randrange(1, 9)
            case 5:
                other = draw.choice(inputs)
                data[at:end] = other[at : at + draw.randrange(1, 65)]
            case 6:
                del data[at:]
                data += draw.choice(inputs)[at:]
            case _:
                data.insert(at, draw.randrange(256))
    return bytes(data[:LEN_MAX])
