"""Writing files whole or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_whole(path: str | os.PathLike[str], content: bytes | memoryview | str) -> Path:
    """Write `content` (text as UTF-8) to `path`: a reader sees the old file or the new one, never a part of either.

    A write that fails leaves the old file as it was and nothing beside it. A symbolic link is followed, not replaced.
    Returns the path that was written.

    Raises TypeError for other content, and OSError as the system has it (no such folder, disk full, ...).
    """
    if isinstance(content, str):
        content = content.encode("utf-8")
    elif not isinstance(content, bytes | memoryview):
        raise TypeError(f"content must be bytes, memoryview or str, got {type(content).__name__}")
    target = Path(path).resolve()
    temporary = target.with_name(f".{secrets.token_hex(8)}.part")  # in the same folder: a rename across disks is a copy
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # the bytes must be on the disk before the name points at them
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return target
