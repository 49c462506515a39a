"""Fixtures of the tests of the package mow."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mow.training import checkpoint


@pytest.fixture(scope="session")
def pictures_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 grey pictures of 8 x 8 with a bright bar of random place, width and light each."""
    return write_pictures(tmp_path_factory.mktemp("data") / "bars.npz", seed=0)


@pytest.fixture
def other_pictures() -> Callable[[Path], Path]:
    """Writes as many pictures as `pictures_file` has, but others."""
    return lambda path: write_pictures(path, seed=1)


def write_pictures(path: Path, seed: int) -> Path:
    random = np.random.default_rng(seed)
    pictures = random.integers(0, 40, (200, 8, 8))
    for picture, left, width, light in zip(
        pictures, random.integers(0, 6, 200), random.integers(1, 3, 200), random.integers(90, 215, 200), strict=True
    ):
        picture[:, left : left + width] += light
    np.savez(path, pictures.astype(np.uint8))
    return path


@pytest.fixture
def read_metrics() -> Callable[[Path], list[dict[str, Any]]]:
    """The lines of a run's metrics.jsonl, without the seconds."""
    return metrics_of


@pytest.fixture
def assert_same_run() -> Callable[[Path, Path], None]:
    """Fails unless two folders hold the same metrics, seconds left out, and bit for bit the same state."""

    def check(one: Path, other: Path) -> None:
        assert metrics_of(one) == metrics_of(other)
        a, b = state_of(one), state_of(other)
        assert a.keys() == b.keys()
        assert [name for name in a if not equal(a[name], b[name])] == []

    return check


def metrics_of(out: Path) -> list[dict[str, Any]]:
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name != "seconds"} for line in lines]


def state_of(out: Path) -> dict[str, Any]:
    """Weights, optimiser, window, place in the data and random state: a flat dictionary of a run's checkpoint."""
    state = checkpoint.load(out / "checkpoint.pt")
    return dict(flat({name: state[name] for name in ("trainer", "stream", "random")}))


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from flat(item, f"{name}/{key}")
    else:
        yield name, value


def equal(a: Any, b: Any) -> bool:
    return torch.equal(a, b) if isinstance(a, Tensor) else a == b


@pytest.fixture
def small_files() -> Callable[[int], AbstractContextManager[None]]:
    """small_files(size): the system refuses inside to write beyond `size` bytes, in the midst of a file."""
    resource = pytest.importorskip("resource")

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, ignored)

    return limited
