"""The prior that moves along: its rows, and what it is worth as a sample."""

from __future__ import annotations

import copy

import pytest
import torch

import mow
import mow_kernels as mk


def normal(seed: int) -> mow.priors.Normal:
    return mow.priors.Normal(torch.Generator().manual_seed(seed))


def test_a_measurement_compares_with_k_new_rows_and_the_newest_older_ones() -> None:
    prior = mow.PriorWindow(6, 3, normal(0), dtype=torch.float64)
    expected = mow.priors.Normal(torch.Generator().manual_seed(0))
    drawn = expected.sample(6, prior.latents)
    distance, window = mow.MMD(prior), mow.MovingWindow(6, 3, dtype=torch.float64)
    for k, present in ((2, 2), (2, 4), (1, 5), (3, 6), (2, 6)):
        z, history = torch.randn(k, 3, dtype=torch.float64), window.history(k)
        drawn = torch.cat([drawn, expected.sample(k, z)])
        value = distance(z, window)
        assert torch.equal(value, mk.mmd(z, history, drawn[-present:]))
        window.push(z)


def test_every_sample_has_the_law_of_the_prior() -> None:
    """The mean over many windows of the distance to a fixed sample is that of samples drawn afresh."""
    z, prior = torch.randn(10, 2, generator=torch.Generator().manual_seed(1)) + 0.5, mow.PriorWindow(20, 2, normal(2))
    moving, fresh = mow.CramerWold(prior), mow.CramerWold(normal(3))
    history = torch.randn(10, 2, generator=torch.Generator().manual_seed(4))
    seen = torch.stack([moving(z, history) for _ in range(3000)])
    expected = torch.stack([fresh(z, history) for _ in range(3000)])
    error = (expected.var() / 3000 * 20).sqrt()  # two samples of a window have rows in common for 20 rows
    assert (seen.mean() - expected.mean()).abs() < 4 * error
    assert (seen.std() / expected.std() - 1).abs() < 0.2


def test_it_is_part_of_the_state_of_the_distance() -> None:
    distances = [mow.MMD(mow.PriorWindow(5, 3, normal(seed))) for seed in range(2)]
    distances[1].load_state_dict(copy.deepcopy(distances[0].state_dict()))
    assert torch.equal(distances[0].prior.latents, distances[1].prior.latents)


def test_kernels_fit_the_prior_whose_rows_it_has() -> None:
    z = torch.randn(4, 3, generator=torch.Generator().manual_seed(5))
    prior = mow.PriorWindow(4, 3, "uniform")
    value = mow.MMD(prior)(z)
    expected = mk.mmd(z, None, prior.newest(4), scales=[scale / 2 for scale in mk.SCALES])
    torch.testing.assert_close(value, expected)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="prior is 'normal', the closed form"):
        mow.PriorWindow(4, 3, "normal")
    with pytest.raises(ValueError, match="prior is 'gamma'"):
        mow.PriorWindow(4, 3, "gamma")
    with pytest.raises(ValueError, match="prior has n = 4; to be compared with 5 rows"):
        mow.MMD(mow.PriorWindow(4, 3))(torch.ones(5, 3))
