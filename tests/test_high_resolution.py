"""What is counted of a step on large pictures, against what is known of it, and the tiles of photographs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from benchmarks import ROOT
from studies.high_resolution import counted
from studies.high_resolution.kept import kept_bytes
from studies.high_resolution.photographs import cut


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_kept_bytes_by_hand(device: str) -> None:
    """Both layers keep their input, the first one's output is kept once by ReLU and the second layer."""
    layers = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 5)).to(device)
    x = torch.empty(3, 10, device=device)
    weights = sum(layer.weight.nbytes for layer in (layers[0], layers[2]))
    assert kept_bytes(lambda: layers(x), layers.parameters()) == 4 * 3 * (10 + 20)
    assert 4 * 3 * (10 + 20) < kept_bytes(lambda: layers(x)) <= 4 * 3 * (10 + 20) + weights
    with torch.no_grad():
        assert kept_bytes(lambda: layers(x)) == 0


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_live_bytes_by_hand(device: str) -> None:
    with counted.Live() as live:
        a = torch.empty(100, device=device)
        b = a[10:]  # the same storage
        c = a + 1
        del a
        assert live.bytes == 800
        del b, c
        torch.empty(50, device=device)
        assert live.bytes == 0 and live.peak == 800


def test_a_full_batch_keeps_forty_times_as_much_as_one_picture() -> None:
    """FFHQ's architecture at 1024 x 1024, n = 64."""
    one, full = (counted.measure(1024, k) for k in (1, 64))
    assert full["kept"] >= 40 * one["kept"] and full["peak"] > 32 * one["peak"]
    last = 4 * 128 * 1024 * 1024  # the widest activation alone
    assert last < one["kept"] < 2 * last
    checkpointing = counted.measure(1024, 1, checkpointing=True)
    assert checkpointing["kept"] < one["kept"] / 10 and checkpointing["peak"] > 0.9 * one["peak"], "as the page has it"


@pytest.mark.long
def test_what_is_counted_is_held() -> None:
    """The peak of a process grows with k by what the step holds at a time, and by what convolutions work with."""
    script = "import json; from studies.high_resolution import resident\n"
    script += "print(json.dumps(resident.run(((64, 1), (64, 64)))['rows']))"
    # In a process between, which is small: the peak of a child begins at its parent's.
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    one, many = json.loads(done.stdout)
    expected = counted.measure(64, 64)["peak"] - counted.measure(64, 1)["peak"]
    assert 0.8 * expected < many["peak"] - one["peak"] < 4 * expected


def test_tiles_do_not_overlap_and_lie_around_the_middle(tmp_path: Path) -> None:
    source, into = tmp_path / "source", tmp_path / "into"
    source.mkdir()
    into.mkdir()
    array = np.random.default_rng(0).integers(0, 256, (35, 70, 3), np.uint8)
    Image.fromarray(array).save(source / "a.jpg", quality=100, subsampling=0)
    Image.fromarray(array[:9]).save(source / "small.jpg")
    (found,) = cut(source, into, side=16, most=4)
    assert found == {"file": "a.jpg", "size": [70, 35], "corners": [[3, 1], [35, 1], [3, 17], [35, 17]]}
    stored = np.asarray(Image.open(source / "a.jpg"))
    for number, (x, y) in enumerate(found["corners"]):
        assert np.array_equal(np.asarray(Image.open(into / f"a-{number}.png")), stored[y : y + 16, x : x + 16])
    (source / "a.jpg").unlink()
    with pytest.raises(ValueError, match="no .jpg photograph of 16 x 16"):
        cut(source, into, side=16)
