"""Core-sets as batches: projections keep distances, batches cover their candidates, data loaders take the sampler."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import mow
import mow_kernels as mk
from mow.neighbours.coreset import CoresetPrior
from mow.window.priors import Normal, Sphere


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Random projection


def test_distances_are_kept_within_the_bound(randn: Any) -> None:
    x, epsilon = randn(60, 2000), 0.5
    dim = math.ceil((4 * math.log(60) + 2 * math.log(1e4)) / (epsilon**2 / 2 - epsilon**3 / 3))
    ratio = torch.pdist(mow.random_projection(x, dim, generator=seeded())).square() / torch.pdist(x).square()
    assert 1 - epsilon < ratio.min() and ratio.max() < 1 + epsilon
    assert float(ratio.mean()) == pytest.approx(1, abs=5 * math.sqrt(2 / dim / 60))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_the_same_seed_projects_further_data_alike(randn: Any, dtype: torch.dtype) -> None:
    x = randn(10, 3, 5, dtype=dtype)
    projected = mow.random_projection(x, 4, generator=seeded())
    assert projected.shape == (10, 4) and projected.dtype == dtype
    again = torch.cat([mow.random_projection(part, 4, generator=seeded()) for part in x.split(7)])
    torch.testing.assert_close(again, projected)
    assert not torch.equal(mow.random_projection(x, 4, generator=seeded(1)), projected)


def test_pictures_are_scaled_and_pieces_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = torch.randint(256, (50, 1, 6, 6), generator=seeded(), dtype=torch.uint8)
    projected = mow.random_projection(pictures, 8, generator=seeded())
    assert projected.dtype == torch.float32
    torch.testing.assert_close(projected, mow.random_projection(pictures.float() / 255, 8, generator=seeded()))
    monkeypatch.setattr("mow.neighbours.coreset._CHUNK", 100)
    torch.testing.assert_close(mow.random_projection(pictures, 8, generator=seeded()), projected)


@pytest.mark.parametrize(
    ("error", "message", "x", "dim"),
    [
        (TypeError, "x is list", [[1.0]], 2),
        (TypeError, "x is torch.int64", torch.ones(2, 2).long(), 2),
        (ValueError, r"x has shape \[3\]", torch.ones(3), 2),
        (ValueError, r"x has shape \[0, 3\]", torch.ones(0, 3), 2),
        (ValueError, "dim is 0", torch.ones(2, 3), 0),
        (TypeError, "dim is 1.5", torch.ones(2, 3), 1.5),
    ],
)
def test_bad_projections(error: type[Exception], message: str, x: Any, dim: Any) -> None:
    with pytest.raises(error, match=message):
        mow.random_projection(x, dim)


# The sampler


def test_batches_of_different_indices_as_many_as_in_a_plain_epoch(randn: Any) -> None:
    sampler = mow.CoresetSampler(randn(103, 4), 10, factor=3, generator=seeded())
    batches = list(sampler)
    assert len(batches) == len(sampler) == 10
    assert all(len(set(batch)) == 10 and set(batch) <= set(range(103)) for batch in batches)
    assert list(sampler) != batches  # the next epoch has another order
    assert list(mow.CoresetSampler(randn(103, 4), 10, factor=3, generator=seeded())) != batches  # other features


def test_the_same_seed_gives_the_same_batches(randn: Any) -> None:
    features = randn(50, 3)
    one, other = (list(mow.CoresetSampler(features, 7, generator=seeded(3))) for _ in range(2))
    assert one == other
    torch.manual_seed(5)
    drawn = list(mow.CoresetSampler(features, 7))
    torch.manual_seed(5)
    assert list(mow.CoresetSampler(features, 7)) == drawn


def test_a_pass_offers_every_sample_once() -> None:
    """factor * batch_size divides N, so each pass is N candidates; far-off pairs make sure who is kept."""
    corners = torch.tensor([[0.0], [100.0]]).repeat(10, 1) + 0.001 * torch.arange(20)[:, None]
    batches = list(mow.CoresetSampler(corners, 2, factor=10, generator=seeded()))
    assert all({index % 2 for index in batch} == {0, 1} for batch in batches)
    seen = [
        index for batch in list(mow.CoresetSampler(torch.eye(12), 4, factor=1, generator=seeded())) for index in batch
    ]
    assert sorted(seen) == list(range(12))


def test_a_batch_covers_better_than_chance(randn: Any) -> None:
    features = torch.cat([randn(950, 2), randn(50, 2) + 20])  # a rare cluster

    def radius(batch: list[int]) -> float:
        return float(torch.cdist(features, features[batch]).min(1).values.max())

    covering = [radius(batch) for batch in mow.CoresetSampler(features, 10, generator=seeded())]
    plain = [radius(batch) for batch in mow.CoresetSampler(features, 10, factor=1, generator=seeded())]
    assert sum(covering) < 0.5 * sum(plain)


def test_as_the_batch_sampler_of_a_data_loader(randn: Any) -> None:
    features, labels = randn(40, 3), torch.arange(40)
    sampler = mow.CoresetSampler(features, 8, generator=seeded())
    expected = list(mow.CoresetSampler(features, 8, generator=seeded()))
    loader = DataLoader(TensorDataset(features, labels), batch_sampler=sampler, num_workers=1)
    assert [batch[1].tolist() for batch in loader] == expected and len(loader) == 5


def test_all_samples_are_candidates_where_there_are_few(randn: Any) -> None:
    features = randn(10, 2)
    (batch,) = mow.CoresetSampler(features, 10, factor=100)
    assert sorted(batch) == list(range(10))


@pytest.mark.parametrize(
    ("error", "message", "features", "batch_size", "options"),
    [
        (TypeError, "features is torch.uint8", torch.ones(4, 2).byte(), 2, {}),
        (TypeError, "features is list", torch.ones(4, 2).tolist(), 2, {}),
        (ValueError, r"features has shape \[4, 1, 2\]", torch.ones(4, 1, 2), 2, {}),
        (ValueError, r"features has shape \[0, 2\]", torch.ones(0, 2), 2, {}),
        (ValueError, "batch_size is 5; .* 4", torch.ones(4, 2), 5, {}),
        (ValueError, "batch_size is 0", torch.ones(4, 2), 0, {}),
        (TypeError, "batch_size is '2'", torch.ones(4, 2), "2", {}),
        (ValueError, "factor is 0", torch.ones(4, 2), 2, {"factor": 0}),
        (TypeError, "factor is 1.5", torch.ones(4, 2), 2, {"factor": 1.5}),
    ],
)
def test_bad_samplers(error: type[Exception], message: str, features: Any, batch_size: Any, options: dict) -> None:
    with pytest.raises(error, match=message):
        mow.CoresetSampler(features, batch_size, **options)


# The prior


def test_the_prior_keeps_rows_of_its_draw_that_cover_it() -> None:
    like = torch.empty(1, 5, dtype=torch.float64)
    kept = CoresetPrior(seeded(1), prior=Normal(seeded())).sample(16, like)
    drawn = Normal(seeded()).sample(64, like)
    assert kept.shape == (16, 5) and kept.dtype == torch.float64
    expected = mk.k_center(drawn, 16, generator=seeded(1))
    assert torch.equal(kept, drawn[expected.indices])

    def radius(rows: Tensor) -> Tensor:
        return torch.cdist(drawn, rows).min(1).values.max()

    assert radius(kept) == pytest.approx(float(expected.radius)) and radius(kept) < radius(drawn[:16])


def test_the_prior_is_one_for_the_distances(randn: Any) -> None:
    prior = CoresetPrior(prior=Sphere(seeded()), factor=2)
    assert prior.kernel_scale(4) == Sphere().kernel_scale(4)
    assert torch.isfinite(mow.MMD(prior)(randn(6, 4)))
    with pytest.raises(TypeError, match="prior is 'normal'"):
        CoresetPrior(prior="normal")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="factor is 0"):
        CoresetPrior(factor=0)
