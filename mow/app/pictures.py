"""Pictures as grids: tensors in, PIL images and PNG files out.

Pictures are [C, H, W] with C = 1 (grey) or 3 (RGB): uint8, or floating point with 0 black and 1 full. What lies
outside [0, 1] is drawn as the nearest bound and NaN as black, so that a diverged model still gives a picture. The gaps
between the pictures are transparent: a grid looks right on a light page and on a dark one.
"""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mow.files import write_whole

_SIDE = 96  # pixels that an enlarged picture may measure


def grid(pictures: Tensor, columns: int, scale: int | None = None) -> Image.Image:
    """Lay pictures [N, C, H, W] out row by row, `columns` in a row.

    `scale` is the integer factor by which pictures are enlarged (nearest neighbour); None picks the largest one that
    keeps them within 96 pixels. Returns an image of mode LA (C = 1) or RGBA (C = 3).

    Raises TypeError for another dtype, ValueError for another shape, no pictures, or columns or scale below 1.
    """
    tiles, gap = _tiles("pictures", pictures, scale)
    return _assemble(tiles, columns, gap, gap)


def reconstruction_grid(
    originals: Tensor, reconstructions: Tensor, columns: int, scale: int | None = None
) -> Image.Image:
    """Lay originals and reconstructions [N, C, H, W] out in pairs: a row of originals, right under it theirs.

    A wide gap parts one pair of rows from the next. `scale`, the returned image and the errors are those of `grid`;
    ValueError also when the two shapes differ.
    """
    if originals.shape != reconstructions.shape:
        raise ValueError(
            "originals and reconstructions must have the same shape, "
            f"got {list(originals.shape)} and {list(reconstructions.shape)}"
        )
    above, gap = _tiles("originals", originals, scale)
    below, _ = _tiles("reconstructions", reconstructions, scale)
    count, _, width, channels = above.shape
    between = np.zeros((count, gap, width, channels), dtype=np.uint8)
    return _assemble(np.concatenate([above, between, below], axis=1), columns, gap, 4 * gap)


def interpolation_grid(rows: Tensor, scale: int | None = None) -> Image.Image:
    """Lay R walks of T pictures [R, T, C, H, W] out, each in a row of its own; the rest is as in `grid`."""
    if rows.dim() != 5:
        raise ValueError(f"rows must be [R, T, C, H, W], got {list(rows.shape)}")
    tiles, gap = _tiles("rows", rows.flatten(0, 1), scale)
    return _assemble(tiles, rows.shape[1], gap, gap)


def save_png(image: Image.Image, path: str | os.PathLike[str]) -> Path:
    """Write `image` as a PNG file, whole or not at all; returns the path. OSError as `write_whole` raises it."""
    return write_whole(path, _png(image))


def png_data_uri(source: str | os.PathLike[str] | Image.Image) -> str:
    """The PNG file at `source`, or the image, as a data URI that a page can embed.

    Raises ValueError when the file is no PNG, OSError when it cannot be read.
    """
    content = _png(source) if isinstance(source, Image.Image) else Path(source).read_bytes()
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError(f"source must be a PNG file, {source} is none")
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def _tiles(name: str, pictures: Tensor, scale: int | None) -> tuple[np.ndarray, int]:
    """Enlarged uint8 tiles [N, H, W, C + 1], the last channel being alpha, and the width of a thin gap beside them."""
    if pictures.dim() != 4 or pictures.shape[1] not in (1, 3) or 0 in pictures.shape:
        raise ValueError(f"{name} must be [N, C, H, W] with C 1 or 3 and no empty side, got {list(pictures.shape)}")
    if scale is None:
        scale = max(1, _SIDE // max(pictures.shape[2:]))
    elif scale < 1:
        raise ValueError(f"scale must be an integer of at least 1, got {scale}")
    pictures = pictures.detach().cpu()
    if pictures.is_floating_point():
        pictures = pictures.float().nan_to_num(nan=0.0).clamp(0, 1).mul(255).round().to(torch.uint8)
    elif pictures.dtype != torch.uint8:
        raise TypeError(f"{name} must be uint8 or floating point, got {pictures.dtype}")
    tiles = pictures.permute(0, 2, 3, 1).numpy().repeat(scale, axis=1).repeat(scale, axis=2)
    return np.pad(tiles, [(0, 0), (0, 0), (0, 0), (0, 1)], constant_values=255), max(2, scale)


def _assemble(tiles: np.ndarray, columns: int, gap_x: int, gap_y: int) -> Image.Image:
    if columns < 1:
        raise ValueError(f"columns must be an integer of at least 1, got {columns}")
    count, height, width, channels = tiles.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    step_y, step_x = height + gap_y, width + gap_x
    canvas = np.zeros((rows * step_y - gap_y, columns * step_x - gap_x, channels), dtype=np.uint8)
    for i, tile in enumerate(tiles):
        top, left = i // columns * step_y, i % columns * step_x
        canvas[top : top + height, left : left + width] = tile
    return Image.fromarray(canvas)
