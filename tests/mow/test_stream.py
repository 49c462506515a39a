"""The stream: shuffled passes that resume from two integers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from mow import ShuffledStream
from mow.distributed import Ranks


class Labelled(Dataset):
    """Pictures of one pixel that hold their index, with a label, as torchvision has it."""

    def __init__(self, count: int, kind: type = tuple) -> None:
        self.count, self.kind = count, kind

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.kind([torch.tensor([float(index)]), -index])


def numbers(count: int) -> Tensor:
    return torch.arange(count, dtype=torch.float64)[:, None]


def one_pass(stream: ShuffledStream, k: int) -> list[list[float]]:
    """The batches up to the end of the pass."""
    batches, epoch = [stream.take(k)[:, 0].tolist()], stream.epoch
    while stream.epoch == epoch and stream.offset < len(stream.pictures):
        batches.append(stream.take(k)[:, 0].tolist())
    return batches


@pytest.mark.parametrize("count, k", [(10, 1), (10, 3), (10, 5), (10, 10), (10, 64), (1, 1)])
def test_a_pass_gives_each_picture_once_and_may_end_short(count: int, k: int) -> None:
    stream = ShuffledStream(numbers(count))
    for _ in range(3):
        batches = one_pass(stream, k)
        assert sorted(sum(batches, [])) == list(range(count))
        whole, rest = divmod(count, k)
        assert [len(batch) for batch in batches] == [k] * whole + [rest] * (rest > 0)


@pytest.mark.parametrize("count, k", [(10, 1), (10, 3), (4, 4), (1, 1)])
def test_the_recent_pictures_are_those_taken_last(count: int, k: int) -> None:
    stream, seen = ShuffledStream(numbers(count), seed=2), []
    for _ in range(9):
        seen += stream.take(k)[:, 0].tolist()
        assert stream.taken == len(seen)
        position = stream.epoch, stream.offset
        for rows in {1, min(3, len(seen)), len(seen)}:
            assert stream.recent(rows)[:, 0].tolist() == seen[-rows:]
            shares = [stream.recent(rows, Ranks(rank, 3).share)[:, 0].tolist() for rank in range(3)]
            assert sum(shares, []) == seen[-rows:] and len(shares[0]) == -(-rows // 3)
        assert (stream.epoch, stream.offset) == position
    for rows in (0, len(seen) + 1):
        with pytest.raises(ValueError, match=f"count is {rows}; it must be from 1 to the {len(seen)}"):
            stream.recent(rows)


def test_the_order_differs_from_pass_to_pass_and_from_seed_to_seed() -> None:
    orders = [one_pass(stream, 20) for seed in (0, 1) for stream in [ShuffledStream(numbers(20), seed)] for _ in "ab"]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])


def test_the_order_depends_on_the_seed_and_the_pass_alone() -> None:
    torch.manual_seed(0)
    first = [ShuffledStream(numbers(20), seed=5).take(1) for _ in range(1)]
    state = torch.get_rng_state()
    stream = ShuffledStream(numbers(20), seed=5)
    assert torch.equal(stream.take(1), first[0])
    assert torch.equal(torch.get_rng_state(), state), "the default generator is left alone"
    by_ones, by_sevens = ShuffledStream(numbers(20), seed=5), ShuffledStream(numbers(20), seed=5)
    for _ in range(3):
        assert sum(one_pass(by_ones, 1), []) == sum(one_pass(by_sevens, 7), [])


@pytest.mark.parametrize("taken", [0, 1, 3, 4, 5, 9, 12])
def test_it_goes_on_from_two_integers(taken: int) -> None:
    stream, other = ShuffledStream(numbers(11), seed=2), ShuffledStream(numbers(11), seed=2)
    for _ in range(taken):
        stream.take(3)
    other.seek(stream.epoch, stream.offset)
    for _ in range(9):
        assert torch.equal(stream.take(3), other.take(3))


def test_seek_goes_back() -> None:
    stream = ShuffledStream(numbers(11))
    first = one_pass(stream, 2)
    one_pass(stream, 2)
    stream.seek(epoch=0, offset=0)
    assert one_pass(stream, 2) == first


@pytest.mark.parametrize("seed", [0, -1, 2**40, 1_763_712_345_678_901_234, 2**63 - 1])
def test_any_seed_of_pytorch(seed: int) -> None:
    torch.Generator().manual_seed(seed)
    assert sorted(sum(one_pass(ShuffledStream(numbers(6), seed), 2), [])) == list(range(6))


def test_bytes_become_the_unit_range() -> None:
    pictures = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(3, 1, 1, 1)
    batch = ShuffledStream(pictures).take(3)
    assert batch.dtype == torch.float32 and batch.shape == (3, 1, 1, 1)
    torch.testing.assert_close(batch.flatten().sort().values, torch.tensor([0, 0.2, 1]))


def test_floating_point_stays_as_it_is() -> None:
    pictures = 300 * numbers(3)
    batch = ShuffledStream(pictures).take(3)
    assert batch.dtype == torch.float64
    assert batch.flatten().sort().values.tolist() == [0, 300, 600]


def test_a_batch_is_a_copy() -> None:
    pictures = numbers(4)
    ShuffledStream(pictures).take(4).zero_()
    assert torch.equal(pictures, numbers(4))


@pytest.mark.parametrize("kind", [tuple, list])
def test_a_data_set_of_pictures_and_labels(kind: type) -> None:
    stream, plain = ShuffledStream(Labelled(7, kind), seed=3), ShuffledStream(numbers(7), seed=3)
    for _ in range(5):
        assert torch.equal(stream.take(3).double(), plain.take(3))


def test_data_sets_of_pytorch() -> None:
    bytes_ = torch.full((4, 1, 2, 2), 255, dtype=torch.uint8)
    batch = ShuffledStream(TensorDataset(bytes_, torch.zeros(4))).take(3)
    assert torch.equal(batch, torch.ones(3, 1, 2, 2))


def test_a_plain_list_of_pictures() -> None:
    assert ShuffledStream([torch.ones(2), torch.ones(2)]).take(2).shape == (2, 2)


@pytest.mark.parametrize("pictures", [torch.empty(0, 3), [], Labelled(0)])
def test_no_pictures(pictures: object) -> None:
    with pytest.raises(ValueError, match="pictures is empty"):
        ShuffledStream(pictures)


@pytest.mark.parametrize("count, k", [(10, 3), (10, 4), (10, 10), (7, 6), (5, 8)])
def test_drop_last_has_no_short_batch(count: int, k: int) -> None:
    plain, stream = ShuffledStream(numbers(count), seed=3), ShuffledStream(numbers(count), seed=3, drop_last=True)
    whole = max(1, count // k)
    for _ in range(3):
        expected = one_pass(plain, k)[:whole]
        for batch in expected:
            assert stream.following(k) == len(batch)
            assert stream.take(k)[:, 0].tolist() == batch
            assert len(batch) == min(k, count)


def test_drop_last_resumes_from_two_integers() -> None:
    stream, again = (ShuffledStream(numbers(10), drop_last=True) for _ in range(2))
    for _ in range(3):
        stream.take(3)
    again.seek(stream.epoch, stream.offset)
    assert torch.equal(again.take(3), stream.take(3)) and stream.epoch == again.epoch == 1
