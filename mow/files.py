"""Writing files whole or not at all, and logs of JSON lines that a kill leaves readable."""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any


def write_whole(path: str | os.PathLike[str], content: bytes | memoryview | str) -> Path:
    """Write `content` (text as UTF-8) to `path`: a reader sees the old file or the new one, never a part of either.

    Its folder is made where there is none. A write that fails leaves the old file as it was and nothing beside it. A
    symbolic link is followed, not replaced. Returns the path that was written.

    Raises TypeError for other content, and OSError as the system has it (disk full, no permission, ...), of `path`.
    """
    if isinstance(content, str):
        content = content.encode("utf-8")
    elif not isinstance(content, bytes | memoryview):
        raise TypeError(f"content must be bytes, memoryview or str, got {type(content).__name__}")
    target = Path(path).resolve()
    temporary = target.with_name(f".{secrets.token_hex(8)}.part")  # in the same folder: a rename across disks is a copy
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # the bytes must be on the disk before the name points at them
        os.replace(temporary, target)
    except BaseException as error:
        with suppress(OSError):  # else it hides what was wrong
            temporary.unlink()
        if isinstance(error, OSError) and error.filename == str(temporary):
            raise type(error)(error.errno, error.strerror, str(target)) from None
        raise
    return target


def json_text(value: Any, indent: int | None = None) -> str:
    """`value` as JSON, in which there is no number for NaN and infinity: null stands for them.

    >>> json_text({"loss": math.nan, "step": 3})
    '{"loss": null, "step": 3}'
    """
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def number_text(value: float | None, form: str) -> str:
    """A number of such JSON as text in a format such as ".1f", a dash for null."""
    return "\N{EN DASH}" if value is None else format(value, form)


def read_json_lines(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The complete lines of a file of JSON objects, none if there is no file. A kill may leave a last one unfinished.

    Raises ValueError where a line is no JSON.
    """
    records = []
    path = Path(path)
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(True) if path.exists() else (), 1):
        if line.endswith("\n"):
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number}, is no JSON: {error}") from error
    return records


def append_json_line(path: str | os.PathLike[str], record: Mapping[str, Any]) -> None:
    """Add a JSON object as a line, in place of a last line that a kill has left without its end."""
    path = Path(path)
    content = path.read_bytes() if path.exists() else b""
    if not content.endswith(b"\n") and content:
        write_whole(path, content[: content.rfind(b"\n") + 1])
    with open(path, "a", encoding="utf-8") as file:
        file.write(json_text(record) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
