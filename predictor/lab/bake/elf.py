"""Shared libraries without a dependency that they do not use.

Compiled packages name `libtorch.so`, which holds no code and, in torch built with CUDA, pulls in a gigabyte of CUDA
libraries: a second of a CPU's cold start. Format: System V ABI, chapter 5, "Dynamic Linking"; 64 bits, little-endian.
"""

import struct
from pathlib import Path

LOAD, DYNAMIC = 1, 2  # p_type
NULL, NEEDED, STRTAB = 0, 1, 5  # d_tag


def drop_dependency(library: Path, name: str) -> bool:
    """Remove `name` from the libraries that `library` asks for; whether it was among them.

    Raises:
        ValueError: not a 64-bit little-endian ELF file with a dynamic section.
    """
    data = bytearray(library.read_bytes())
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError(f"{library}: not a 64-bit little-endian ELF file")
    (headers,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    segments = [struct.unpack_from("<IIQQQQQQ", data, headers + size * index) for index in range(count)]
    dynamic = next(((s[2], s[5]) for s in segments if s[0] == DYNAMIC), None)
    if dynamic is None:
        raise ValueError(f"{library}: no dynamic section")
    offset, length = dynamic
    entries = [struct.unpack_from("<QQ", data, at) for at in range(offset, offset + length, 16)]
    table = next(value for tag, value in entries if tag == STRTAB)
    strings = next(s[2] + table - s[3] for s in segments if s[0] == LOAD and s[3] <= table < s[3] + s[5])

    def text(value: int) -> str:
        start = strings + value
        return data[start : data.index(0, start)].decode()

    kept = [entry for entry in entries if not (entry[0] == NEEDED and text(entry[1]) == name)]
    if len(kept) == len(entries):
        return False
    kept += [(NULL, 0)] * (len(entries) - len(kept))
    struct.pack_into(f"<{2 * len(kept)}Q", data, offset, *(word for entry in kept for word in entry))
    library.write_bytes(data)
    return True
