"""IDX, the file format of MNIST and Fashion-MNIST (http://yann.lecun.com/exdb/mnist/, "The IDX file format")."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from mow.app.data.base import DataError

_GZIP = b"\x1f\x8b"
_UNSIGNED_BYTES = b"\0\0\x08"


def read_idx(path: Path) -> np.ndarray:
    """The array of unsigned bytes in an IDX file, read-only. Gzip is told by the content, not by the file's name.

    Raises DataError if the file cannot be read, is no IDX file of unsigned bytes, or is shorter or longer than its
    header promises.
    """
    try:
        raw = path.read_bytes()
        if raw.startswith(_GZIP):
            raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: damaged or unreadable: {error}") from error
    if len(raw) < 4 or not raw.startswith(_UNSIGNED_BYTES):
        raise DataError(f"{path}: not an IDX file of unsigned bytes: it starts with {raw[:4].hex(' ') or 'nothing'}")
    rank = raw[3]
    start = 4 + 4 * rank
    if len(raw) < start:
        raise DataError(f"{path}: damaged: it ends within its header, after {len(raw)} bytes")
    shape = struct.unpack_from(f">{rank}I", raw, 4)
    promised, found = math.prod(shape), len(raw) - start
    if found != promised:
        raise DataError(f"{path}: damaged: its header promises shape {shape}, {promised:,} bytes, but {found:,} follow")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)
