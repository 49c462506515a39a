"""Checkpoints: written whole or not at all, read without unpickling code."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from mow.files import write_whole

FORMAT = 1


class CheckpointError(ValueError):
    """A file that is not a checkpoint of this library; the message names it and says why."""


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a state of tensors, numbers, strings, lists and dictionaries."""
    content = io.BytesIO()
    torch.save({"mow": FORMAT, **state}, content)
    write_whole(path, content.getbuffer())


def load(path: Path, entries: Iterable[str] = ()) -> dict[str, Any]:
    """Read what `save` wrote, onto the CPU.

    Args:
        path: the file.
        entries: what it must hold.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it cannot be read, is truncated, foreign, of another format, or lacks an entry.
    """
    return loads(read(path), path, entries)


def read(path: Path) -> bytes:
    """What the file holds. Raises as `load` does."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path}") from None
    except OSError as error:
        raise CheckpointError(f"{path} is not a checkpoint of mow: it cannot be read ({error.strerror})") from error


def loads(content: bytes, path: Path, entries: Iterable[str] = ()) -> dict[str, Any]:
    """`load` from what `read` gave; path is for the messages."""
    try:
        with warnings.catch_warnings(action="ignore"):  # about pickles that are refused anyway
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a reader of foreign bytes stumbles over
        raise CheckpointError(f"{path} is not a checkpoint of mow, or is damaged ({type(error).__name__})") from error
    if not isinstance(state, dict) or state.get("mow") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of mow of format {FORMAT}")
    if lacking := [entry for entry in entries if entry not in state]:
        raise CheckpointError(f"{path} is not a checkpoint of mow: it lacks {', '.join(lacking)}")
    return state
