"""Pictures as people have them: each is right, or named once and left out."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, features
from torch import Tensor
from typer.testing import CliRunner

from mow.app import grid
from mow.app.cli import app
from mow.app.data import DataError, PictureData, PictureWarning, load
from mow.app.data.pictures import read_square
from mow.app.options import Options

COLOUR = (200, 100, 40)


def fill(folder: Path, count: int = 12) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", (8, 8), (10 * number, 20, 30)).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of twelve good pictures."""
    return fill(tmp_path / "photos")


def quiet(folder: Path) -> PictureData:
    """What is loaded where nothing is to be told."""
    with warnings.catch_warnings(action="error"):
        return load(folder)


def told(folder: Path) -> tuple[PictureData, list[str]]:
    with warnings.catch_warnings(record=True, action="always") as caught:
        found = load(folder)
    assert all(each.category is PictureWarning for each in caught)
    return found, [str(each.message) for each in caught]


def everything(found: PictureData) -> Tensor:
    return torch.cat([found.train, found.test])


# What a file may hold


def cmyk(path: Path) -> None:
    Image.new("RGB", (8, 8), COLOUR).convert("CMYK").save(path)


def palette(path: Path) -> None:
    Image.new("RGB", (8, 8), COLOUR).quantize(4).save(path)


def palette_with_a_clear_colour(path: Path) -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, *COLOUR])
    image.paste(0, (0, 0, 8, 4))
    image.save(path, transparency=0)


def half_clear(path: Path) -> None:
    Image.new("RGBA", (8, 8), (*COLOUR, 128)).save(path)


def animated(path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (COLOUR, (0, 0, 0), (255, 255, 255))]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=10)


def grey(mode: str, value: float) -> Any:
    kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
    return lambda path: Image.fromarray(np.full((8, 8), value, kind)).save(path)


def clear_grey_of_sixteen_bits(path: Path) -> None:
    Image.fromarray(np.full((8, 8), 0x1234, np.uint16)).save(path, transparency=0x1234)


def one_bit(path: Path) -> None:
    Image.new("1", (8, 8), 1).save(path)


def plain(path: Path) -> None:
    Image.new("RGB", (8, 8), COLOUR).save(path)


@pytest.mark.parametrize(
    "name, write, colour, tolerance",
    [
        ("cmyk.jpg", cmyk, COLOUR, 8),
        ("cmyk.tif", cmyk, COLOUR, 1),
        ("palette.png", palette, COLOUR, 2),
        ("palette.gif", palette, COLOUR, 2),
        ("half.png", half_clear, tuple(round(c * 128 / 255 + 127) for c in COLOUR), 1),
        ("half.webp", half_clear, tuple(round(c * 128 / 255 + 127) for c in COLOUR), 6),
        ("animated.gif", animated, COLOUR, 2),
        ("animated.webp", animated, COLOUR, 8),
        ("animated.png", animated, COLOUR, 0),
        ("deep.png", grey("I;16", 0x80FF), (0x80,) * 3, 0),
        ("deep.tiff", grey("I;16", 0x80FF), (0x80,) * 3, 0),
        ("wide.tif", grey("I", 0x80FF), (0x80,) * 3, 0),
        ("float.tif", grey("F", 0.5), (128,) * 3, 0),
        ("clear.png", clear_grey_of_sixteen_bits, (255,) * 3, 0),
        ("bit.png", one_bit, (255,) * 3, 0),
        ("photo.JFIF", plain, COLOUR, 4),
        ("photo.avif", plain, COLOUR, 8),
        ("\N{SNOWMAN} \u0444\u043e\u0442\u043e\n.png", plain, COLOUR, 0),
    ],
)
def test_a_kind_of_picture(photos: Path, name: str, write: Any, colour: tuple[int, ...], tolerance: int) -> None:
    if name.endswith((".webp", ".avif")) and not features.check(name.rpartition(".")[2]):
        pytest.skip("this Pillow has no such codec")
    if name.endswith("JFIF"):
        plain(photos / "photo.jpg")
        (photos / "photo.jpg").rename(photos / name)
    else:
        write(photos / name)
    found = quiet(photos)
    assert len(everything(found)) == 13 and found.left_out == {} and "left out" not in found.origin
    square = torch.tensor(read_square(photos / name, 8, grey=False)).int()
    assert (square - torch.tensor(colour)).abs().max() <= tolerance
    assert (everything(found).permute(0, 2, 3, 1).int() == square).flatten(1).all(1).any()


def test_a_clear_colour_of_a_palette_is_white(photos: Path) -> None:
    palette_with_a_clear_colour(photos / "p.png")
    square = read_square(photos / "p.png", 8, grey=False)
    assert (square[:4] == 255).all() and (square[4:] == COLOUR).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_upright_whatever_the_orientation(tmp_path: Path, orientation: int, suffix: str) -> None:
    """EXIF 2.32, 4.6.4, orientation: where row 0 and column 0 of what is stored belong."""
    upright = np.arange(0, 192, 12, dtype=np.uint8).reshape(4, 4)
    stored = {
        **{1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1]},
        **{5: upright.T, 6: np.rot90(upright), 7: upright[::-1, ::-1].T, 8: np.rot90(upright, -1)},
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / f"a.{suffix}", exif=exif, **lossless)
    assert np.array_equal(read_square(tmp_path / f"a.{suffix}", 4, grey=True), upright)


# What is left out


def test_what_holds_no_picture_is_named_once_and_counted(photos: Path) -> None:
    whole = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(whole).save(photos / "cut.jpg")
    (photos / "cut.jpg").write_bytes((photos / "cut.jpg").read_bytes()[:700])
    (photos / "empty.png").touch()
    (photos / "text.png").write_text("no picture at all")
    (photos / "deeper").mkdir()
    (photos / "deeper" / "head.png").write_bytes((photos / "01.png").read_bytes()[:20])
    Image.fromarray(np.full((8, 8), 3.5, np.float32)).save(photos / "heights.tif")
    (photos / "nowhere.png").symlink_to("gone.png")
    (photos / "circle.png").symlink_to("circle.png")
    for name in (".hidden.png", "a.heic", "b.heic", "notes.txt"):
        (photos / name).touch()
    (photos / "folder.png").mkdir()
    found, messages = told(photos)
    reasons = {
        "cut.jpg": "truncated",
        "deeper/head.png": "not a readable picture",
        "empty.png": "the file is empty",
        "heights.tif": "values from 3.5 to 3.5; floats must lie in [0, 1]",
        "nowhere.png": "a link that leads nowhere",
        "circle.png": "a link that leads nowhere",
        "text.png": "of no known format",
    }
    assert found.left_out.keys() == reasons.keys() and len(messages) == len(reasons)
    for name, why in reasons.items():
        (message,) = (each for each in messages if each.startswith(f"{name} is left out: "))
        assert why in message and str(photos) not in message
    assert found.origin.endswith("; left out: 7 unreadable, 3 of another kind (.heic, .txt), 1 hidden")
    assert repr(found) == "PictureData('photos', train=10, test=2, picture=3x8x8, left_out=7)"
    assert torch.equal(everything(found), everything(quiet(fill(photos.parent / "good" / "photos"))))


def test_what_is_left_out_decides_nothing(tmp_path: Path) -> None:
    """Neither that the rest is in colour, nor its size."""
    for number in range(12):
        Image.new("L", (20, 20), number).save(tmp_path / f"{number}.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:700])
    found, messages = told(tmp_path)
    assert found.train.shape == (10, 1, 20, 20) and len(messages) == 1


def test_too_few_that_can_be_read(tmp_path: Path) -> None:
    fill(tmp_path, 9)
    for name in "abcd":
        (tmp_path / f"{name}.png").touch()
    with pytest.raises(
        DataError, match=r"found 9 pictures .* left out a.png \(.*empty\), .* c.png \(.*\) \.\.\., but at"
    ):
        load(tmp_path)


def test_links_are_followed_and_may_go_in_circles(photos: Path) -> None:
    album = fill(photos.parent / "elsewhere", 3)
    (photos / "album").symlink_to(album)
    (album / "back").symlink_to(photos)
    (photos / "again").symlink_to(album)
    (photos / "self").symlink_to(photos)
    (photos / "real").mkdir()
    shutil.copy(photos / "01.png", photos / "real")
    (photos / "a link").symlink_to("real")
    found = quiet(photos)
    assert len(everything(found)) == 12 + 3 + 1
    (photos / "real" / "cut.png").touch()
    (photos / "up").symlink_to("..")
    found, _ = told(photos)
    assert found.left_out.keys() == {"real/cut.png", "up"} and "around this one" in found.left_out["up"]


def test_a_folder_that_may_not_be_read(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (photos / "private").mkdir()
    plain_listdir = os.listdir

    def listdir(path: Path) -> list[str]:
        if Path(path).name == "private":
            raise PermissionError(13, "Permission denied", str(path))
        return plain_listdir(path)

    monkeypatch.setattr(os, "listdir", listdir)
    assert told(photos)[0].left_out == {"private": "a folder that cannot be read: Permission denied"}


# At the command line


@pytest.fixture
def strange(tmp_path: Path) -> Iterator[Path]:
    """A folder whose name, and that of a broken picture, is no UTF-8."""
    try:
        folder = fill(tmp_path / os.fsdecode(b"caf\xe9"))
        (folder / os.fsdecode(b"\xff\x1b.png")).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    yield folder


def test_names_that_are_no_text(strange: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    common = ["--n", "4", "--dim", "2", "--steps", "3", "--out", str(out)]
    result = CliRunner().invoke(app, ["train", "--data", str(strange), *common])
    assert result.exit_code == 0, (result.output, result.exception)
    assert result.stderr.splitlines() == [
        "looking at pictures: 13 of 13",
        "reading pictures: 12 of 12",
        r"\udcff\x1b.png is left out: not a readable picture: the file is empty",
    ]
    assert "12 colour pictures from" in result.stdout and "caf\\udce9" in result.stdout
    assert "left out: 1 unreadable" in (out / "report.html").read_text()
    assert CliRunner().invoke(app, ["sample", str(out), "--out", str(tmp_path / "samples.png")]).exit_code == 0


@pytest.mark.long
def test_a_grid_tells_of_it_once(photos: Path, tmp_path: Path) -> None:
    (photos / "empty.png").touch()
    events: list[tuple[str, Any]] = []
    common = {"data": [str(photos)], "n": [4], "dim": [2], "steps": [3], "seed": [0, 1, 2]}
    cells = grid.cells(common)
    assert Options in {type(cell.options) for cell in cells}
    done = grid.run_cells(
        cells, tmp_path / "grid", jobs=2, on_event=lambda name, kind, what: events.append((kind, what))
    )
    assert len(done) == 3
    assert [what for kind, what in events if kind == "warned"] == [
        "empty.png is left out: not a readable picture: the file is empty"
    ]


@pytest.mark.long
def test_ten_thousand(tmp_path: Path) -> None:
    folder = fill(tmp_path / "many", 0)
    Image.new("RGB", (8, 8), COLOUR).save(tmp_path / "one.png")
    content = (tmp_path / "one.png").read_bytes()
    for number in range(10_000):
        (folder / f"{number}.png").write_bytes(content if number % 100 else content[: number // 100 % 40])
    found, messages = told(folder)
    assert len(found.left_out) == len(messages) == 100
    assert len(everything(found)) == 9_900
