"""Theorem 1 of the paper in numbers: for small steps the moving window follows the gradient flow at the rate k/n.

n elements are read in turn, k at a time. As the step size goes to 0, the weights S after t / step steps go to the
solution of S' = -(k/n) grad C(S), where C(S) = lambda F(the latents of all n) + sum_i G(x_i), G the squared error.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor, nn

import mow
from mow.window.distances import Distance

N, WIDTH, DIM = 8, 3, 2
FLOW_TIME = 0.3  # how far along the flow we look: t = FLOW_TIME n/k
PASSES = (5, 10, 20, 40)  # over the data until then: a pass has n/k steps, hence step = FLOW_TIME / passes
ORDER = (0.8, 1.3)  # of convergence: 1 in the limit

DISTANCES: dict[str, Callable[[], Distance]] = {
    "cramer-wold": mow.CramerWold,
    "log cramer-wold": lambda: mow.CramerWold(log=True),
    "mmd": mow.MMD,
}
WEIGHTS = {"cramer-wold": 10.0, "log cramer-wold": 1.0, "mmd": 1.0}  # such that F matters beside G


def model() -> nn.ModuleList:
    """A smooth encoder, and a linear decoder."""
    torch.manual_seed(1)
    encoder = nn.Sequential(nn.Linear(WIDTH, DIM), nn.Tanh())
    return nn.ModuleList([encoder, nn.Linear(DIM, WIDTH)]).double()


def data() -> Tensor:
    return torch.randn(N, WIDTH, generator=torch.Generator().manual_seed(2), dtype=torch.float64) / 2


def vector(modules: nn.Module) -> np.ndarray:
    return nn.utils.parameters_to_vector(modules.parameters()).detach().numpy().copy()


@cache
def moving_window(name: str, k: int, passes: int, reencode: bool) -> np.ndarray:
    """The weights after so many passes over the data with k new elements a step."""
    encoder, decoder = modules = model()
    trainer = mow.Trainer(
        encoder,
        decoder,
        DISTANCES[name](),
        mow.MovingWindow(N, DIM, dtype=torch.float64),
        k=k,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=FLOW_TIME / passes),
        weight=WEIGHTS[name],
        weighting="paper",
        reencode=reencode,
    )
    x = data()
    if k < N:
        trainer.window.fill(encoder(x[: N - k]))
    for number in range(passes * N // k):
        start = (N - k + number * k) % N
        trainer.step(x[start : start + k])
    return vector(modules)


@cache
def flow(name: str, time: float) -> np.ndarray:
    """The solution of S' = -grad C(S) at this time."""
    encoder, decoder = modules = model()
    parameters, distance, x = list(modules.parameters()), DISTANCES[name](), data()

    def velocity(_: float, weights: np.ndarray) -> np.ndarray:
        nn.utils.vector_to_parameters(torch.tensor(weights), parameters)
        z = encoder(x)
        cost = WEIGHTS[name] * distance(z) + (decoder(z) - x).square().sum()
        return -torch.cat([gradient.flatten() for gradient in torch.autograd.grad(cost, parameters)]).numpy()

    return solve_ivp(velocity, (0, time), vector(modules), method="DOP853", rtol=1e-8, atol=1e-10).y[:, -1]


def gaps(name: str, k: int, goal: np.ndarray, reencode: bool = True) -> np.ndarray:
    """How far from the goal the weights end, for a step size that is halved from one to the next."""
    return np.array([np.linalg.norm(moving_window(name, k, passes, reencode) - goal) for passes in PASSES])


@pytest.mark.parametrize("reencode", [True, False])
@pytest.mark.parametrize("k", [1, 2, N])
@pytest.mark.parametrize("name", DISTANCES)
def test_the_moving_window_converges_to_the_flow_at_the_rate_k_over_n(name: str, k: int, reencode: bool) -> None:
    """S((n/k) T) along S' = -(k/n) grad C(S) is S(T) along S' = -grad C(S). The error is of the first order."""
    goal = flow(name, FLOW_TIME)
    errors = gaps(name, k, goal, reencode=reencode)
    orders = np.log2(errors[:-1] / errors[1:])
    assert ((ORDER[0] < orders) & (orders < ORDER[1])).all(), (errors, orders)
    assert errors[-1] < 0.03 * np.linalg.norm(goal - flow(name, 0.0)), errors


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("name", DISTANCES)
def test_it_does_not_converge_to_the_flow_at_the_rate_1(name: str, k: int) -> None:
    errors = gaps(name, k, flow(name, FLOW_TIME * N / k))
    assert errors[-1] > 50 * gaps(name, k, flow(name, FLOW_TIME))[-1]
    assert errors[-1] > 0.9 * errors[0], "and smaller steps do not help"


@pytest.mark.parametrize("name", DISTANCES)
def test_the_distance_takes_part(name: str) -> None:
    """So that the tests above could not pass without it."""
    with_distance = flow(name, FLOW_TIME)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(WEIGHTS, name, 0.0)
        without = flow.__wrapped__(name, FLOW_TIME)
    assert np.linalg.norm(with_distance - without) > 0.2 * np.linalg.norm(with_distance - flow(name, 0.0))
