"""Checkpoints: whole or not at all, and never code."""

from __future__ import annotations

import errno
import os
import pickle
import random
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mow.training import checkpoint
from mow.training.checkpoint import CheckpointError


def state(seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "weights": {"a": torch.randn(30, 7, generator=generator), "b": torch.randn(3, generator=generator).double()},
        "options": {"model": "cwae", "n": 64, "lr": 1e-3, "log": True, "dim": None, "sizes": [1, 2]},
        "random": torch.get_rng_state(),
    }


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_round_trip(tmp_path: Path) -> None:
    path, written = tmp_path / "checkpoint.pt", state()
    checkpoint.save(path, written)
    read = checkpoint.load(path)
    assert read["options"] == written["options"]
    for name, value in written["weights"].items():
        assert torch.equal(read["weights"][name], value) and read["weights"][name].dtype == value.dtype
    assert torch.equal(read["random"], written["random"])
    assert os.listdir(tmp_path) == ["checkpoint.pt"]


def test_it_replaces_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    for number in (1, 2):
        checkpoint.save(path, {"number": number})
        assert checkpoint.load(path)["number"] == number
    assert os.listdir(tmp_path) == ["checkpoint.pt"]


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="checkpoint.pt"):
        checkpoint.load(tmp_path / "checkpoint.pt")


# Damaged and foreign files


def assert_refused(path: Path) -> None:
    """In one line, without a warning beside it."""
    with warnings.catch_warnings(record=True, action="always") as warned:
        with pytest.raises(CheckpointError, match="is not a checkpoint of mow") as caught:
            checkpoint.load(path)
    assert [str(warning.message) for warning in warned] == []
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_truncated_at_any_length(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, state())
    content = path.read_bytes()
    lengths = {*range(0, 70), *range(0, len(content), 97), *range(len(content) - 200, len(content))}
    for length in sorted(lengths):
        path.write_bytes(content[:length])
        assert_refused(path)


def test_flipped_bytes_are_refused_or_read(tmp_path: Path) -> None:
    """There is no check sum, but what cannot be read is told as such and in no other way."""
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {"weights": torch.zeros(2), "options": {"model": "cwae", "n": 64}})
    content, draw, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(400):
        damaged = bytearray(content)
        for _ in range(draw.choice([1, 1, 3, 20])):
            damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        try:
            checkpoint.load(path)
        except CheckpointError:
            refused += 1
    assert refused > 40


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"not a checkpoint", b"\x80", b"PK\x03\x04", b"PK\x05\x06" + 18 * b"\0", b"\x93NUMPY", b"\0" * 4096],
)
def test_files_of_another_kind(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(content)
    assert_refused(path)


def test_random_bytes(tmp_path: Path) -> None:
    path, draw = tmp_path / "checkpoint.pt", random.Random(1)
    for _ in range(150):
        path.write_bytes(draw.randbytes(draw.randrange(1, 200)))
        assert_refused(path)
        path.write_bytes(b"\x80\x02" + draw.randbytes(draw.randrange(1, 60)))  # the head of a pickle
        assert_refused(path)


def test_archives_and_arrays(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.txt", "hello")
    assert_refused(path)
    with open(path, "wb") as file:
        np.savez(file, np.zeros(3))
    assert_refused(path)


@pytest.mark.parametrize(
    "content",
    [{"weights": torch.zeros(2)}, {"mow": 2, "weights": torch.zeros(2)}, torch.zeros(3), [1, 2], {"mow": "1"}, 1],
)
def test_files_of_pytorch_that_are_no_checkpoint(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "checkpoint.pt"
    torch.save(content, path)
    assert_refused(path)


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").mkdir()
    assert_refused(tmp_path / "checkpoint.pt")


@pytest.mark.parametrize("legacy", [False, True])
def test_no_code_is_run(tmp_path: Path, legacy: bool) -> None:
    path, trace = tmp_path / "checkpoint.pt", tmp_path / "it ran"
    content = {"mow": checkpoint.FORMAT, "options": Bomb(trace)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    assert_refused(path)
    assert not trace.exists()


def test_no_code_of_a_plain_pickle_is_run(tmp_path: Path) -> None:
    path, trace = tmp_path / "checkpoint.pt", tmp_path / "it ran"
    path.write_bytes(pickle.dumps({"mow": checkpoint.FORMAT, "options": Bomb(trace)}))
    assert_refused(path)
    assert not trace.exists()
    pickle.loads(path.read_bytes())
    assert trace.exists(), "so the bomb was one"


# Failed writes


def test_a_failed_rename_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {"number": 1})

    def full(source: Any, target: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="No space left"):
            checkpoint.save(path, {"number": 2})
    assert checkpoint.load(path)["number"] == 1
    assert os.listdir(tmp_path) == ["checkpoint.pt"]


def test_a_write_that_breaks_off_leaves_the_checkpoint_before(tmp_path: Path, small_files: Any) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {"number": 1})
    with small_files(50_000), pytest.raises(OSError):
        checkpoint.save(path, {"weights": torch.zeros(50_000)})
    assert checkpoint.load(path)["number"] == 1
    assert os.listdir(tmp_path) == ["checkpoint.pt"]


def test_what_cannot_be_written_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {"number": 1})
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
        checkpoint.save(path, {"function": lambda: None})
    assert checkpoint.load(path)["number"] == 1
    assert os.listdir(tmp_path) == ["checkpoint.pt"]
