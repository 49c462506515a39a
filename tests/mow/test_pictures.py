from __future__ import annotations

import base64
import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mow.app.pictures import grid, interpolation_grid, png_data_uri, reconstruction_grid, save_png


def numbered(count: int, channels: int = 1, height: int = 3, width: int = 5) -> torch.Tensor:
    """Picture i has the value 10 (i + 1) everywhere."""
    values = 10 * (torch.arange(count) + 1)
    return values.view(-1, 1, 1, 1).expand(count, channels, height, width).to(torch.uint8)


def rows_of(image: Image.Image, x: int = 0) -> list[int]:
    """The colours met going down at column x, without repeats; -1 is a gap."""
    column = np.asarray(image)[:, x]
    colours = [int(pixel[0]) if pixel[-1] else -1 for pixel in column]
    return [colour for i, colour in enumerate(colours) if i == 0 or colour != colours[i - 1]]


def test_grid_lays_out_row_by_row_with_transparent_gaps() -> None:
    image = grid(numbered(5), columns=3, scale=2)
    assert image.mode == "LA"
    assert image.size == (3 * 10 + 2 * 2, 2 * 6 + 2)
    pixels = np.asarray(image)
    for i in range(5):
        top, left = i // 3 * 8, i % 3 * 12
        tile = pixels[top : top + 6, left : left + 10]
        assert (tile[..., 0] == 10 * (i + 1)).all() and (tile[..., 1] == 255).all()
    assert int((pixels[..., 1] == 255).sum()) == 5 * 60  # the gaps and the empty place let the page through


def test_grid_enlarges_to_the_nearest_neighbour() -> None:
    picture = torch.arange(6, dtype=torch.uint8).view(1, 1, 2, 3)
    pixels = np.asarray(grid(picture, columns=1, scale=4))[..., 0]
    assert (pixels == np.kron(picture[0, 0].numpy(), np.ones((4, 4)))).all()


@pytest.mark.parametrize(("side", "shown"), [(28, 84), (32, 96), (64, 64), (200, 200), (1, 96)])
def test_small_pictures_are_enlarged(side: int, shown: int) -> None:
    assert grid(torch.zeros(1, 1, side, side), columns=4).size == (shown, shown)


def test_colours_and_floating_point() -> None:
    picture = torch.tensor([-1.0, 0.5, 2.0]).view(1, 3, 1, 1).requires_grad_()
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        image = grid(picture.to(dtype), columns=1, scale=1)
        assert image.mode == "RGBA"
        assert image.getpixel((0, 0)) == (0, 128, 255, 255)
    assert grid(torch.full((1, 1, 1, 1), torch.nan), columns=1, scale=1).getpixel((0, 0)) == (0, 255)


def test_reconstructions_stand_right_under_their_originals() -> None:
    originals, reconstructions = numbered(4), numbered(4) + 100
    image = reconstruction_grid(originals, reconstructions, columns=2, scale=1)
    assert rows_of(image, x=0) == [10, -1, 110, -1, 30, -1, 130]
    assert rows_of(image, x=5 + 2) == [20, -1, 120, -1, 40, -1, 140]
    alpha = np.asarray(image)[:, 0, 1]
    gaps = np.flatnonzero(alpha == 0)
    assert gaps.tolist() == [3, 4, *range(8, 16), 19, 20]  # 2 within a pair, 8 between them


def test_interpolations_have_a_row_each() -> None:
    walks = numbered(6).view(2, 3, 1, 3, 5)
    image = interpolation_grid(walks, scale=1)
    assert rows_of(image, x=0) == [10, -1, 40]
    assert rows_of(image, x=2 * 7) == [30, -1, 60]
    assert image == grid(walks.flatten(0, 1), columns=3, scale=1)


def test_png_files_are_whole_and_the_same_each_time(tmp_path: Path) -> None:
    image = grid(numbered(3, channels=3), columns=2)
    path = save_png(image, tmp_path / "a.png")
    first = path.read_bytes()
    save_png(image, path)
    assert path.read_bytes() == first
    assert os.listdir(tmp_path) == ["a.png"]
    assert Image.open(path).tobytes() == image.tobytes()


def test_data_uri_of_a_file_and_of_an_image(tmp_path: Path) -> None:
    image = grid(numbered(1), columns=1)
    path = save_png(image, tmp_path / "a.png")
    head, content = png_data_uri(path).split(",")
    assert head == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(content))).tobytes() == image.tobytes()
    assert png_data_uri(image) == png_data_uri(path)
    (tmp_path / "no.png").write_bytes(b"<svg onload=...>")
    with pytest.raises(ValueError, match="source must be a PNG file"):
        png_data_uri(tmp_path / "no.png")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: grid(torch.zeros(3, 8, 8), 2), ValueError, r"pictures must be .* got \[3, 8, 8\]"),
        (lambda: grid(torch.zeros(3, 2, 8, 8), 2), ValueError, "with C 1 or 3"),
        (lambda: grid(torch.zeros(0, 1, 8, 8), 2), ValueError, "no empty side"),
        (lambda: grid(torch.zeros(1, 1, 8, 8, dtype=torch.int64), 2), TypeError, "got torch.int64"),
        (lambda: grid(torch.zeros(1, 1, 8, 8), 0), ValueError, "columns must be .* got 0"),
        (lambda: grid(torch.zeros(1, 1, 8, 8), 1, scale=0), ValueError, "scale must be .* got 0"),
        (lambda: interpolation_grid(torch.zeros(3, 1, 8, 8)), ValueError, r"rows must be \[R, T, C, H, W\]"),
        (
            lambda: reconstruction_grid(torch.zeros(2, 1, 8, 8), torch.zeros(3, 1, 8, 8), 2),
            ValueError,
            r"must have the same shape, got \[2, 1, 8, 8\] and \[3, 1, 8, 8\]",
        ),
    ],
)
def test_bad_input(call: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()  # type: ignore[operator]
