"""Every source of pictures, and every way in which one can be wrong. All files but the embedded ones are made here."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import hashlib
import http.server
import io
import pickle
import struct
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mow import ShuffledStream
from mow.app.data import DataError, LazyPictures, PictureWarning, cifar, embedded_fashion_mnist, load, mnist, sources
from mow.app.data import pictures as sources_of_pictures
from mow.app.data.idx import read_idx

TRAIN, TEST = 30, 12


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the collections that this machine may have, or its MOW_DATA."""
    monkeypatch.delenv("MOW_DATA", raising=False)
    monkeypatch.setattr(sources, "PACKAGED", tmp_path / "packaged")
    monkeypatch.setattr(sources.pooch, "os_cache", lambda name: tmp_path / "cache" / name)


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def collection_files(seed: int = 0) -> dict[str, bytes]:
    rng = np.random.default_rng(seed)
    files = {}
    for part, count in (("train", TRAIN), ("t10k", TEST)):
        files[f"{part}-images-idx3-ubyte"] = idx(rng.integers(0, 256, (count, 5, 4)))
        files[f"{part}-labels-idx1-ubyte"] = idx(rng.integers(0, 10, count))
    return files


def write_collection(folder: Path, *, gzipped: bool = True, seed: int = 0) -> dict[str, bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    files = collection_files(seed)
    for name, raw in files.items():
        (folder / (f"{name}.gz" if gzipped else name)).write_bytes(gzip.compress(raw) if gzipped else raw)
    return files


def pictures_in(raw: bytes) -> torch.Tensor:
    return torch.tensor(np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 1, 5, 4))


# The embedded pictures


def test_the_embedded_files_are_the_published_ones() -> None:
    published = sources.COLLECTIONS["fashion-mnist"].published
    for name in list(published)[2:]:
        assert hashlib.sha256((mnist.EMBEDDED / name).read_bytes()).hexdigest() == published[name]
    assert "MIT License" in (mnist.EMBEDDED / "LICENSE").read_text(encoding="utf-8")


def test_embedded_split_is_balanced_and_complete() -> None:
    data = embedded_fashion_mnist()
    assert data.embedded and data.name == "fashion-mnist"
    assert data.train.dtype == data.test.dtype == torch.uint8
    assert data.train.shape == (8000, 1, 28, 28) and data.test.shape == (2000, 1, 28, 28)
    assert data.train_labels.dtype == torch.int64
    assert data.train_labels.bincount().tolist() == [800] * 10
    assert data.test_labels.bincount().tolist() == [200] * 10
    whole = read_idx(mnist.EMBEDDED / "t10k-images-idx3-ubyte.gz")
    assert int(data.train.sum(dtype=torch.int64) + data.test.sum(dtype=torch.int64)) == int(whole.sum(dtype=np.int64))
    assert torch.equal(data.train[0, 0], torch.tensor(whole[0])) and torch.equal(
        data.test[-1, 0], torch.tensor(whole[-1])
    )


def test_fashion_mnist_falls_back_to_the_embedded_pictures_and_says_so(tmp_path: Path) -> None:
    data = load("fashion-mnist")
    assert data.embedded and len(data.train) == 8000
    assert "10,000 embedded" in data.origin and "not found in" in data.origin and str(tmp_path) in data.origin


# The named collections


@pytest.mark.parametrize("gzipped", [True, False])
@pytest.mark.parametrize("subfolder", ["", "fashion-mnist", "FashionMNIST/raw"])
def test_a_collection_in_data_dir(tmp_path: Path, subfolder: str, gzipped: bool) -> None:
    files = write_collection(tmp_path / "mine" / subfolder, gzipped=gzipped)
    data = load("fashion-mnist", data_dir=tmp_path / "mine")
    assert not data.embedded and data.name == "fashion-mnist"
    assert torch.equal(data.train, pictures_in(files["train-images-idx3-ubyte"]))
    assert torch.equal(data.test, pictures_in(files["t10k-images-idx3-ubyte"]))
    assert data.test_labels.tolist() == list(files["t10k-labels-idx1-ubyte"][8:])
    assert data.origin == (
        f"Fashion-MNIST (30 pictures to train, 12 to test), found in {tmp_path / 'mine' / subfolder}"
    )


def test_places_are_searched_in_the_documented_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def found() -> str:
        return load("mnist").origin.split("found in ")[1]

    write_collection(tmp_path / "cache/mow/mnist")
    assert found() == str(tmp_path / "cache/mow/mnist")
    write_collection(tmp_path / "packaged/MNIST/raw")
    assert found() == str(tmp_path / "packaged/MNIST/raw")
    (tmp_path / "env").mkdir()
    monkeypatch.setenv("MOW_DATA", str(tmp_path / "env"))
    assert found() == str(tmp_path / "packaged/MNIST/raw")
    write_collection(tmp_path / "env")
    assert found() == str(tmp_path / "env")
    write_collection(tmp_path / "env/mnist")
    assert found() == str(tmp_path / "env/mnist")


def test_data_dir_without_the_files_comes_before_the_other_places(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    source = load("fashion-mnist", data_dir=mine)
    assert source.embedded
    assert str(mine) in source.origin
    with pytest.raises(DataError, match="MNIST was not found") as caught:
        load("mnist", data_dir=mine)
    for word in (str(mine), "MNIST/raw", "train-images-idx3-ubyte", "--download"):
        assert word in str(caught.value)
    write_collection(tmp_path / "cache/mow/fashion-mnist")
    assert str(tmp_path / "cache") in load("fashion-mnist", data_dir=mine).origin
    write_collection(mine)
    assert str(mine) in load("fashion-mnist", data_dir=mine).origin


def test_folders_that_do_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="data_dir is .*not a folder that exists"):
        load("mnist", data_dir=tmp_path / "nowhere")
    monkeypatch.setenv("MOW_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="MOW_DATA is .*not a folder that exists"):
        load("fashion-mnist")


def test_mnist_has_nothing_embedded(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="MNIST was not found") as caught:
        load("mnist")
    for word in (str(tmp_path / "packaged"), str(tmp_path / "cache/mow"), "MNIST/raw", "download", "MOW_DATA"):
        assert word in str(caught.value)


def test_one_collection_is_not_taken_for_another(tmp_path: Path) -> None:
    write_collection(tmp_path)
    labels = np.resize(mnist.FIRST_LABELS["Fashion-MNIST"], TRAIN)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    with pytest.raises(DataError, match="these files are Fashion-MNIST, not MNIST"):
        load("mnist", data_dir=tmp_path)
    assert len(load("fashion-mnist", data_dir=tmp_path).train) == TRAIN


GOOD = idx(np.arange(24).reshape(2, 3, 4))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "starts with nothing"),
        (b"hello, this is text", "not an IDX file"),
        (b"\0\0\x0d\x01" + bytes(8), "not an IDX file of unsigned bytes: it starts with 00 00 0d 01"),
        (GOOD[:9], "ends within its header"),
        (GOOD[:-1], r"promises shape \(2, 3, 4\), 24 bytes, but 23 follow"),
        (GOOD + b"x", "but 25 follow"),
        (gzip.compress(GOOD, mtime=0)[:-6], "damaged or unreadable"),
        (gzip.compress(GOOD, mtime=0)[:-12] + b"x" * 12, "damaged or unreadable"),
        (b"\x1f\x8b" + b"?" * 40, "damaged or unreadable"),
    ],
)
def test_damaged_idx_files_are_named(tmp_path: Path, raw: bytes, message: str) -> None:
    (tmp_path / "broken").write_bytes(raw)
    with pytest.raises(DataError, match=message) as caught:
        read_idx(tmp_path / "broken")
    assert str(tmp_path / "broken") in str(caught.value)


def test_idx_is_read_packed_or_not_whatever_its_name(tmp_path: Path) -> None:
    for name, raw in (("a.gz", GOOD), ("b", gzip.compress(GOOD))):
        (tmp_path / name).write_bytes(raw)
        assert np.array_equal(read_idx(tmp_path / name), np.arange(24).reshape(2, 3, 4))
    with pytest.raises(DataError, match="nothing-here"):
        read_idx(tmp_path / "nothing-here")


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("train-labels-idx1-ubyte", np.zeros(TRAIN - 1), r"labels of shape \(29,\) for 30 pictures"),
        ("train-images-idx3-ubyte", np.zeros((TRAIN, 20)), r"pictures of shape \(30, 20\)"),
        ("t10k-images-idx3-ubyte", np.zeros((TEST, 4, 5)), "train and test pictures differ"),
    ],
)
def test_files_that_do_not_fit_together(tmp_path: Path, name: str, array: np.ndarray, message: str) -> None:
    write_collection(tmp_path)
    (tmp_path / f"{name}.gz").write_bytes(idx(array))
    with pytest.raises(DataError, match=message):
        load("mnist", data_dir=tmp_path)


# Downloads


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder behind a local server, from which "mnist" is downloaded; the mirror before it is out of order."""
    folder = tmp_path / "mirror"
    write_collection(folder)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}/"
        gzipped = [folder / f"{name}.gz" for name in mnist.FILES]
        published = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in gzipped}
        collection = dataclasses.replace(
            sources.COLLECTIONS["mnist"], mirrors=(f"{address}closed/", address), published=published
        )
        monkeypatch.setitem(sources.COLLECTIONS, "mnist", collection)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield folder
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("progress", [False, True])
def test_download_tries_the_mirrors_and_fills_the_cache(tmp_path: Path, mirror: Path, progress: bool) -> None:
    data = load("mnist", download=True, progress=progress)
    cache = tmp_path / "cache/mow/mnist"
    assert data.origin == f"MNIST (30 pictures to train, 12 to test), downloaded to {cache}"
    assert sorted(path.name for path in cache.iterdir()) == sorted(f"{name}.gz" for name in mnist.FILES)
    for path in mirror.iterdir():
        path.unlink()
    again = load("mnist", download=True)
    assert "found in" in again.origin and torch.equal(again.train, data.train)


def test_download_goes_where_the_caller_says(tmp_path: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOW_DATA", str(tmp_path / "env"))
    assert load("mnist", data_dir=tmp_path / "new", download=True).origin.endswith(str(tmp_path / "new/mnist"))
    assert load("mnist", download=True).origin.endswith(str(tmp_path / "env/mnist"))
    assert not (tmp_path / "cache").exists()


def test_a_download_with_other_bytes_is_refused_and_leaves_nothing(tmp_path: Path, mirror: Path) -> None:
    (mirror / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(GOOD))
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte.gz could not be downloaded") as caught:
        load("mnist", download=True)
    assert "404" in str(caught.value) and "hash" in str(caught.value).lower()
    left = {path.name for path in (tmp_path / "cache/mow/mnist").iterdir()}
    assert left == {f"{name}.gz" for name in mnist.FILES[:2]}


# CIFAR-10


def cifar_files(counts: tuple[int, ...] = (2, 3, 1, 4, 2, 5)) -> dict[str, bytes]:
    """Files of random records: a label, then three planes of 32 x 32."""
    rng = np.random.default_rng(0)
    records = [np.c_[rng.integers(0, 10, count), rng.integers(0, 256, (count, 3072))] for count in counts]
    names = (*cifar.TRAIN, cifar.TEST)
    return {name: part.astype(np.uint8).tobytes() for name, part in zip(names, records, strict=True)}


def write_archive(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, raw in files.items():
            member = tarfile.TarInfo(f"{cifar.FOLDER}/{name}")
            member.size = len(raw)
            tar.addfile(member, io.BytesIO(raw))


@pytest.mark.parametrize("packed", [True, False])
def test_cifar_10(tmp_path: Path, packed: bool) -> None:
    files = cifar_files()
    if packed:
        write_archive(tmp_path / "cifar-10" / cifar.ARCHIVE, files)
    else:
        (tmp_path / cifar.FOLDER).mkdir()
        for name, raw in files.items():
            (tmp_path / cifar.FOLDER / name).write_bytes(raw)
    data = load("cifar-10", data_dir=tmp_path)
    assert data.train.shape == (12, 3, 32, 32) and data.test.shape == (5, 3, 32, 32)
    assert data.train.dtype == torch.uint8 and data.train_labels.dtype == torch.int64
    train, test = b"".join(files[name] for name in cifar.TRAIN), files[cifar.TEST]
    for raw, pictures, labels in ((train, data.train, data.train_labels), (test, data.test, data.test_labels)):
        assert labels.tolist() == list(raw[::3073])
        assert pictures.numpy().tobytes() == b"".join(raw[row + 1 : row + 3073] for row in range(0, len(raw), 3073))
    assert "CIFAR-10 (12 pictures to train, 5 to test), found in" in data.origin


def test_cifar_10_is_downloaded(tmp_path: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_archive(mirror / cifar.ARCHIVE, cifar_files())
    published = {cifar.ARCHIVE: hashlib.sha256((mirror / cifar.ARCHIVE).read_bytes()).hexdigest()}
    address = sources.COLLECTIONS["mnist"].mirrors[1]
    collection = dataclasses.replace(sources.COLLECTIONS["cifar-10"], mirrors=(address,), published=published)
    monkeypatch.setitem(sources.COLLECTIONS, "cifar-10", collection)
    assert load("cifar-10", download=True).origin.endswith(f"downloaded to {tmp_path / 'cache/mow/cifar-10'}")
    assert "found in" in load("cifar-10").origin


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({cifar.TEST: b""}, "test_batch.bin: 0 bytes"),
        ({"data_batch_2.bin": bytes(3072)}, "data_batch_2.bin: 3,072 bytes; CIFAR-10 has 3,073"),
        ({"data_batch_2.bin": b"\x0a" + bytes(3072)}, "data_batch_2.bin: not CIFAR-10: a label is 10"),
        ({"data_batch_4.bin": None}, "lacks .*data_batch_4.bin"),
    ],
)
def test_damaged_cifar_10_files_are_named(tmp_path: Path, change: dict[str, bytes | None], message: str) -> None:
    files = {name: raw for name, raw in {**cifar_files(), **change}.items() if raw is not None}
    write_archive(tmp_path / cifar.ARCHIVE, files)
    with pytest.raises(DataError, match=message) as caught:
        load("cifar-10", data_dir=tmp_path)
    assert cifar.ARCHIVE in str(caught.value)
    if len(files) == 6:
        for name, raw in files.items():
            (tmp_path / name).write_bytes(raw)
        with pytest.raises(DataError, match=message):
            load("cifar-10", data_dir=tmp_path)


@pytest.mark.parametrize("keep", [0, 100, 30_000])
def test_a_damaged_cifar_10_archive(tmp_path: Path, keep: int) -> None:
    write_archive(tmp_path / cifar.ARCHIVE, cifar_files())
    raw = (tmp_path / cifar.ARCHIVE).read_bytes()
    (tmp_path / cifar.ARCHIVE).write_bytes(raw[:keep])
    with pytest.raises(DataError, match=f"{cifar.ARCHIVE}: damaged or unreadable"):
        load("cifar-10", data_dir=tmp_path)


# Faces


def write_faces(folder: Path, names: list[str], size: tuple[int, int]) -> None:
    """Noise, as every picture has another."""
    rng = np.random.default_rng(0)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8)).save(folder / name)


CELEBA = [f"{number:06}.jpg" for number in range(1, 15)]


def test_celeba(tmp_path: Path) -> None:
    """Its published parts; the central 140 x 140 of a picture, resized."""
    write_faces(tmp_path / "celeba/img_align_celeba", CELEBA, (178, 218))
    lines = [f"{name} {part}" for name, part in zip(CELEBA, "00100012100002", strict=True)]
    (tmp_path / "celeba/list_eval_partition.txt").write_text("\n".join(lines) + "\n")
    data = load("celeba", data_dir=tmp_path)
    assert isinstance(data.train, LazyPictures) and data.train.shape == (9, 3, 64, 64)
    assert data.train.names == [CELEBA[i] for i in (0, 1, 3, 4, 5, 9, 10, 11, 12)]
    assert data.test.names == [CELEBA[i] for i in (7, 13)]
    stored = Image.open(tmp_path / "celeba/img_align_celeba" / data.train.names[3])
    face = stored.crop((19, 39, 159, 179)).resize((64, 64), Image.Resampling.BICUBIC)
    assert torch.equal(data.train[3], torch.tensor(np.asarray(face)).permute(2, 0, 1))
    assert "resized to 64 x 64" in data.origin
    assert load("celeba", data_dir=tmp_path, size=32).test.shape[1:] == (3, 32, 32)


def test_celeba_without_its_list_is_split_by_name(tmp_path: Path) -> None:
    write_faces(tmp_path / "img_align_celeba", CELEBA, (178, 218))
    data = load("celeba", data_dir=tmp_path)
    by_hash = sorted(CELEBA, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    assert data.test.names == sorted(by_hash[::10]) and data.train.names == sorted(set(CELEBA) - set(by_hash[::10]))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("000001.jpg 0\n000099.jpg 2\n", "lists 000099.jpg, which is not in"),
        ("000001.jpg 0\n000002.jpg 3\n", "line 2, is '000002.jpg 3'; it must be"),
        ("image_id,partition\n", "line 1"),
        ("000001.jpg 0\n", "no pictures to test"),
        ("000001.jpg 2\n", "no pictures to train"),
    ],
)
def test_celeba_lists_that_do_not_fit(tmp_path: Path, lines: str, message: str) -> None:
    write_faces(tmp_path / "img_align_celeba", CELEBA[:3], (178, 218))
    (tmp_path / "list_eval_partition.txt").write_text(lines)
    with pytest.raises(DataError, match=message) as caught:
        load("celeba", data_dir=tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_ffhq(tmp_path: Path) -> None:
    """The first 60,000 numbers are for training, wherever they lie."""
    names = ["00000/00000.png", "00000/00999.png", "59000/59999.png", "60000/60000.png", "69000/69999.png"]
    write_faces(tmp_path / "ffhq/images1024x1024", names, (40, 40))
    data = load("ffhq", data_dir=tmp_path)
    assert data.train.names == names[:3] and data.test.names == names[3:]
    assert data.train.shape == (3, 3, 1024, 1024) and data.train[0].shape == (3, 1024, 1024)
    small = load("ffhq", data_dir=tmp_path, size=40)
    stored = Image.open(tmp_path / "ffhq/images1024x1024" / names[4])
    assert torch.equal(small.test[1], torch.tensor(np.asarray(stored)).permute(2, 0, 1))


def test_a_part_of_ffhq_is_split_by_name(tmp_path: Path) -> None:
    names = [f"{number:05}.png" for number in range(12)]
    write_faces(tmp_path / "images1024x1024", names, (8, 8))
    data = load("ffhq", data_dir=tmp_path, size=8)
    assert len(data.train) == 10 and len(data.test) == 2 and sorted(data.train.names + data.test.names) == names
    write_faces(tmp_path / "images1024x1024", ["face.png"], (8, 8))
    with pytest.raises(DataError, match=r"face.png: not FFHQ, whose files are called by their number"):
        load("ffhq", data_dir=tmp_path)


@pytest.mark.parametrize("name, folder", [("celeba", "img_align_celeba"), ("ffhq", "images1024x1024")])
@pytest.mark.parametrize("download", [True, False])
def test_faces_that_are_nowhere(tmp_path: Path, name: str, folder: str, download: bool) -> None:
    """They have no stable address: what to put where is all that can be said."""
    with pytest.raises(DataError, match="cannot be downloaded here: no stable address") as caught:
        load(name, download=download)
    for word in (folder, str(tmp_path / "cache/mow"), "https://", "MOW_DATA"):
        assert word in str(caught.value)
    (tmp_path / "cache/mow" / name / folder).mkdir(parents=True)
    with pytest.raises(DataError, match="no pictures to train"):
        load(name)


# Read when used


@pytest.fixture
def lazy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is read when it is used."""
    monkeypatch.setattr(sources_of_pictures, "IN_MEMORY", 12 * 3 * 20 * 20 - 1)
    write_pictures(tmp_path / "many", 12)
    return tmp_path / "many"


def test_a_large_folder_is_read_when_it_is_used(lazy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = load(lazy)
    assert isinstance(data.train, LazyPictures) and isinstance(data.test, LazyPictures)
    monkeypatch.setattr(sources_of_pictures, "IN_MEMORY", 12 * 3 * 20 * 20)
    at_once = load(lazy)
    assert data.origin == at_once.origin
    for part, whole in ((data.train, at_once.train), (data.test, at_once.test)):
        assert part.shape == whole.shape and part.dtype == whole.dtype and len(part) == len(whole)
        assert torch.equal(part[0], whole[0]) and torch.equal(part[-1], whole[-1])
        assert torch.equal(part[:], whole) and torch.equal(part[1:-1:2], whole[1:-1:2])
        assert part[:0].shape == (0, 3, 20, 20)
        assert all(torch.equal(a, b) for a, b in zip(part.split(4), whole.split(4), strict=True))
    with pytest.raises(IndexError):
        data.test[2]


def test_only_what_is_used_is_decoded(lazy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    read = sources_of_pictures.read_square
    monkeypatch.setattr(
        sources_of_pictures, "read_square", lambda path, **options: decoded.append(path.name) or read(path, **options)
    )
    data = load(lazy)
    assert decoded == []
    data.train[2]
    data.train.digest()
    assert decoded == [data.train.names[2]]


def test_the_stream_reads_lazy_pictures(lazy: Path) -> None:
    data = load(lazy)
    one, other = ShuffledStream(data.train, seed=3), ShuffledStream(data.train[:], seed=3)
    for _ in range(5):
        assert torch.equal(one.take(4), other.take(4))
    batch = next(iter(torch.utils.data.DataLoader(data.train, batch_size=3)))
    assert torch.equal(batch, data.train[:3])


def test_another_stands_in_for_what_turns_out_unreadable(lazy: Path) -> None:
    data = load(lazy)
    path, next_one = lazy / data.train.names[4], data.train[5]
    path.write_bytes(path.read_bytes()[:60])
    assert data.train[:4].shape[0] == 4 and data.train.left_out == {}
    with pytest.warns(PictureWarning, match=f"^{path.name} is left out, and the next .*truncated") as told:
        for _ in range(2):
            assert torch.equal(data.train[4], next_one)
        assert torch.equal(data.train[:][4], next_one) and len(ShuffledStream(data.train).take(10)) == 10
    assert len(told) == 1 and list(data.train.left_out) == [path.name]
    path.unlink()  # the file's absence is no fault of the picture
    with pytest.raises(DataError, match=f"{path.name}: .*No such file"):
        data.train[4]


def test_the_last_picture_has_the_first_to_stand_in_and_none_has_none(lazy: Path) -> None:
    data = load(lazy)
    paths = [lazy / name for name in data.test.names]
    paths[-1].write_bytes(b"")
    with pytest.warns(PictureWarning):
        assert torch.equal(data.test[-1], data.test[0])
    for path in paths:
        path.write_bytes(b"no picture")
    with pytest.warns(PictureWarning), pytest.raises(DataError, match="none of its 2 pictures can be read"):
        data.test[:]


def test_of_a_published_set_no_picture_is_left_out(tmp_path: Path) -> None:
    write_faces(tmp_path / "img_align_celeba", [f"{number:06}.jpg" for number in range(12)], (178, 218))
    data = load("celeba", data_dir=tmp_path)
    path = data.train.folder / data.train.names[4]
    path.write_bytes(path.read_bytes()[:60])
    for use in (lambda: data.train[4], lambda: data.train[:], lambda: ShuffledStream(data.train).take(10)):
        with pytest.raises(DataError, match="not a readable picture") as caught:
            use()
        assert str(path) in str(caught.value)


def test_the_digest_tells_files_apart_by_name_and_size(lazy: Path, tmp_path: Path) -> None:
    digest = load(lazy).train.digest()
    moved = tmp_path / "moved"
    lazy.rename(moved)
    data = load(moved)
    assert data.train.digest() == digest
    path = moved / data.train.names[0]
    path.write_bytes(path.read_bytes() + b"x")
    assert load(moved).train.digest() != digest
    path.write_bytes(path.read_bytes()[:-1])
    assert load(moved).train.digest() == digest
    data.train.names[0] = "another"
    path.rename(moved / "another")
    assert data.train.digest() != digest


def test_a_file_of_another_shape(tmp_path: Path) -> None:
    pictures = LazyPictures(tmp_path, ["a"], lambda path: np.zeros((4, 5), np.uint8), (1, 4, 4))
    with pytest.raises(DataError, match=r"a: a picture of shape \[1, 4, 5\]; it must be \[1, 4, 4\]"):
        pictures[0]


# Folders of pictures


def write_pictures(folder: Path, count: int = 12, size: tuple[int, int] = (20, 20), mode: str = "RGB") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        value = 20 * number if mode == "L" else (20 * number, 10, 200)
        Image.new(mode, size, value).save(folder / f"{number:02}.png")


def test_a_folder_is_read_recursively_and_split_by_name(tmp_path: Path) -> None:
    write_pictures(tmp_path / "mine", 11)
    write_pictures(tmp_path / "mine/deeper", 11)
    write_pictures(tmp_path / "mine/.hidden", 3)
    (tmp_path / "mine/notes.txt").write_text("no picture")
    data = load(str(tmp_path / "mine"))
    assert data.name == "mine" and not data.embedded and data.train_labels is None
    assert data.train.shape == (19, 3, 20, 20) and data.test.shape == (3, 3, 20, 20)
    reds = torch.cat([data.train, data.test])[:, 0, 0, 0].tolist()
    assert sorted(reds) == sorted(2 * [20 * number for number in range(11)])
    assert sum(now < before for before, now in zip(reds[:19], reds[1:19], strict=False)) == 1  # in order of path
    assert data.train[0, 1:, 7, 7].tolist() == [10, 200]
    moved = tmp_path / "moved"
    (tmp_path / "mine").rename(moved)
    assert torch.equal(load(moved).test, data.test)
    assert "22 colour pictures" in data.origin and "20 x 20 (19 to train, 3 to test)" in data.origin


@pytest.mark.parametrize("suffix", ["png", "jpg", "JPEG", "webp", "bmp"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    for number in range(10):
        Image.new("RGB", (16, 16), (10, 200, 100)).save(tmp_path / f"{number}.{suffix}")
    data = load(tmp_path)
    assert data.train.shape == (9, 3, 16, 16) and data.test.shape == (1, 3, 16, 16)
    assert (data.train.int() - torch.tensor([10, 200, 100]).view(3, 1, 1)).abs().max() <= 4


@pytest.mark.parametrize(
    ("sizes", "size", "side"),
    [
        ([(20, 20)], None, 20),
        ([(30, 20), (20, 40)], None, 20),
        ([(20, 20), (21, 21)], None, 64),
        ([(100, 100)], None, 64),
        ([(20, 20)], 32, 32),
        ([(90, 70)], 28, 28),
    ],
)
def test_side(tmp_path: Path, sizes: list[tuple[int, int]], size: int | None, side: int) -> None:
    for number in range(10):
        Image.new("L", sizes[number % len(sizes)]).save(tmp_path / f"{number}.png")
    assert load(tmp_path, size=size).train.shape == (9, 1, side, side)


def test_the_centre_is_kept_and_the_picture_turned_upright(tmp_path: Path) -> None:
    stored = np.zeros((8, 16), np.uint8)
    stored[:, 4:12] = 100  # the central square
    stored[0] += 50  # the top as stored
    for number in range(10):
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned by 90 degrees clockwise: the stored top is the right-hand side
        Image.fromarray(stored).save(tmp_path / f"{number}.png", exif=exif)
    expected = torch.full((8, 8), 100, dtype=torch.uint8)
    expected[:, -1] = 150
    assert torch.equal(load(tmp_path).test[0, 0], expected)


def test_grey_only_if_every_picture_is(tmp_path: Path) -> None:
    write_pictures(tmp_path, 12, mode="L")
    data = load(tmp_path)
    assert data.train.shape == (10, 1, 20, 20) and "grey" in data.origin
    Image.new("RGB", (20, 20), (255, 0, 0)).save(tmp_path / "red.png")
    both = torch.cat([(coloured := load(tmp_path)).train, coloured.test])
    assert both.shape == (13, 3, 20, 20) and (both[:, 0] == both[:, 1]).flatten(1).all(1).sum() == 12


def test_sixteen_bits_and_transparency(tmp_path: Path) -> None:
    for number in range(10):
        Image.fromarray(np.full((8, 8), 0x80FF, np.uint16)).save(tmp_path / f"{number}.png")
    assert load(tmp_path).train.unique().tolist() == [0x80]
    for number in range(10):
        Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / f"{number}.png")
    assert load(tmp_path).train.unique().tolist() == [255]


def test_too_few_pictures(tmp_path: Path) -> None:
    write_pictures(tmp_path, 9)
    with pytest.raises(DataError, match="found 9 pictures .* at least 10"):
        load(tmp_path)


def test_a_folder_is_read_with_a_progress_bar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pictures(tmp_path, 10)
    assert len(load(tmp_path, progress=True).train) == 9
    captured = capsys.readouterr()
    assert "reading pictures" in captured.err and captured.out == ""


# Arrays


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((20, 6, 5), (1, 6, 5)),
        ((20, 6, 5, 1), (1, 6, 5)),
        ((20, 6, 5, 3), (3, 6, 5)),
        ((20, 1, 6, 5), (1, 6, 5)),
        ((20, 3, 6, 5), (3, 6, 5)),
        ((20, 3, 5, 3), (3, 3, 5)),  # both ends could be channels: the last are
    ],
)
def test_layouts_of_an_npy(tmp_path: Path, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.save(tmp_path / "a.npy", array)
    data = load(tmp_path / "a.npy")
    assert data.name == "a" and data.train.dtype == torch.uint8
    assert data.train.shape == (18, *expected) and data.test.shape == (2, *expected)
    assert data.train.is_contiguous()
    channels_first = array.reshape(20, *expected) if shape[1:] == expected or len(shape) == 3 else None
    if channels_first is None:
        channels_first = np.moveaxis(array, 3, 1)
    rows = {row.tobytes() for row in channels_first}
    assert {row.numpy().tobytes() for part in (data.train, data.test) for row in part} == rows


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_are_scaled_and_rounded(tmp_path: Path, dtype: type) -> None:
    values = np.arange(256, dtype=np.float64).reshape(16, 4, 4)
    for shift in (0.3, 0, -0.3):
        np.save(tmp_path / "a.npy", ((values + shift) / 255).clip(0, 1).astype(dtype))
        data = load(tmp_path / "a.npy")
        assert sorted(torch.cat([data.train, data.test]).flatten().tolist()) == list(range(256))


@pytest.mark.parametrize(
    "keys", [("train", "test", "train_labels", "test_labels"), ("x_train", "x_test", "y_train", "y_test")]
)
def test_npz_with_parts_and_labels(tmp_path: Path, keys: tuple[str, ...]) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, (7, 4, 4), np.uint8), rng.integers(0, 256, (3, 4, 4), np.uint8)]
    labels = [np.arange(7, dtype=np.int32), np.arange(3, dtype=np.uint8)]
    np.savez_compressed(tmp_path / "a.npz", **dict(zip(keys, arrays + labels, strict=True)))
    data = load(tmp_path / "a.npz")
    assert torch.equal(data.train[:, 0], torch.tensor(arrays[0])) and torch.equal(
        data.test[:, 0], torch.tensor(arrays[1])
    )
    assert data.train_labels.tolist() == list(range(7)) and data.test_labels.dtype == torch.int64
    np.savez(tmp_path / "b.npz", **dict(zip(keys[:2], arrays, strict=True)))
    assert load(tmp_path / "b.npz").train_labels is None


def test_npz_with_one_array_is_split(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", faces=np.arange(30, dtype=np.uint8).repeat(16).reshape(30, 4, 4))
    data = load(tmp_path / "a.npz")
    by_hash = sorted(range(30), key=lambda row: hashlib.sha256(str(row).encode()).hexdigest())
    assert data.test[:, 0, 0, 0].tolist() == sorted(by_hash[::10])
    assert data.train[:, 0, 0, 0].tolist() == sorted(set(range(30)) - set(by_hash[::10]))
    assert data.origin == f"4 x 4 grey pictures from {tmp_path / 'a.npz'} (27 to train, 3 to test)"


NAN = np.full((20, 4, 4), np.nan)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((20, 16), np.uint8), r"shape \(20, 16\); allowed are"),
        (np.zeros((20, 4, 4, 2), np.uint8), r"shape \(20, 4, 4, 2\); allowed are"),
        (np.zeros((0, 4, 4), np.uint8), "not empty"),
        (np.zeros((20, 4, 4), np.int64), "dtype int64; allowed are uint8"),
        (np.full((20, 4, 4), 1.5), r"values from 1.5 to 1.5; floats must lie in \[0, 1\]"),
        (np.full((20, 4, 4), -0.1), "floats must lie in"),
        (NAN, "floats must lie in"),
        (np.zeros((9, 4, 4), np.uint8), "holds 9 pictures, but at least 10"),
    ],
)
def test_arrays_that_are_no_pictures(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path / "a.npy")
    assert str(tmp_path / "a.npy") in str(caught.value)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros(3), "b": np.zeros(3)}, "it holds a, b; allowed are train and test"),
        ({}, "it holds no array"),
        ({"train": np.zeros((4, 2, 2)), "test": np.zeros((4, 3, 3))}, "train and test pictures differ"),
        (
            {"train": np.zeros((4, 2, 2)), "test": np.zeros((4, 2, 2)), "train_labels": np.zeros(4)},
            "train_labels: labels of shape .*float64",
        ),
        ({"x_train": np.zeros((4, 2, 2)), "x_test": np.zeros((4, 2))}, r"x_test: shape \(4, 2\)"),
    ],
)
def test_npz_that_do_not_fit(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message):
        load(tmp_path / "a.npz")


class Trap:
    """Unpickling one creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_damaged_and_pickled_arrays_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "whole.npy", np.zeros((20, 4, 4), np.uint8))
    np.savez(tmp_path / "whole.npz", np.zeros((20, 4, 4), np.uint8))
    sprung = tmp_path / "sprung"
    contents = {
        "cut.npy": (tmp_path / "whole.npy").read_bytes()[:-1],
        "cut.npz": (tmp_path / "whole.npz").read_bytes()[:-30],
        "empty.npy": b"",
        "text.npz": b"no array",
        "pickle.npy": pickle.dumps(Trap(sprung)),
    }
    for name, raw in contents.items():
        (tmp_path / name).write_bytes(raw)
    np.save(tmp_path / "objects.npy", np.array([Trap(sprung)], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "objects.npz", np.array([Trap(sprung)], dtype=object))
    for name in (*contents, "objects.npy", "objects.npz"):
        with pytest.raises(DataError, match="not a readable") as caught:
            load(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
    assert not sprung.exists()


# What is asked for


@pytest.mark.parametrize("data", ["", " ", "fashon-mnist", "no/such/folder", "missing.npz"])
def test_what_does_not_exist(data: str) -> None:
    with pytest.raises(DataError, match="no path that exists; known names are fashion-mnist, mnist, .* and ffhq"):
        load(data)


def test_misspelt_names_get_a_guess() -> None:
    for data in ("fashon-mnist", "FashionMNIST"):
        with pytest.raises(DataError, match="did you mean 'fashion-mnist'"):
            load(data)


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(DataError, match="a file of another kind"):
        load(tmp_path / "a.txt")


def test_options_that_do_not_go_together(tmp_path: Path) -> None:
    write_pictures(tmp_path, 10)
    np.save(tmp_path / "a.npy", np.zeros((20, 4, 4), np.uint8))
    for options in ({"data_dir": tmp_path}, {"download": True}):
        with pytest.raises(ValueError, match=f"{next(iter(options))}.* goes with fashion-mnist, mnist, .* only"):
            load(tmp_path, **options)
    for data in ("fashion-mnist", tmp_path / "a.npy"):
        with pytest.raises(ValueError, match="size is 32, .*only a folder"):
            load(data, size=32)
    with pytest.raises(ValueError, match="size is 0; it must be at least 1"):
        load(tmp_path, size=0)
    for size in (True, 32.0):
        with pytest.raises(TypeError, match="size is .*must be an int"):
            load(tmp_path, size=size)


def test_data_that_is_not_there_is_told_before_what_goes_with_it() -> None:
    """As `mow evaluate` does after the folder that a run was trained on was moved."""
    with pytest.raises(DataError, match="no path that exists"):
        load("nothing-here", size=32)
