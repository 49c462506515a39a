"""The losses of MMD-GANs: squared MMDs between features of generated and of real pictures, differentiable for both."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

import mow_kernels as mk
from mow.adapters.both import both
from mow.checks import expect


def mix_rq_mmd2(
    X: Tensor,
    Y: Tensor,
    alphas: Sequence[float] = (0.2, 0.5, 1.0, 2.0, 5.0),
    wts: None = None,
    biased: bool = True,
    add_dot: float = 0.0,
) -> Tensor:
    """The squared MMD with a mixture of rational quadratic kernels, sum_a (1 + r/(2a))^-a + add_dot x.y.

        >>> from mow.adapters.mmd_gan import mix_rq_mmd2
        >>> critic, real = encoder, pictures
        >>> loss = mix_rq_mmd2(critic(x), critic(real), biased=False, add_dot=0.1)

    Args:
        X, Y: [n, D] and [m, D]; each receives a gradient if it requires one, by a call a side. The gradient may be
            differentiated, as a penalty on the critic's wants it.
        alphas: > 0.
        wts: None: the kernels of the mixture weigh the same.
        biased: whether the pairs i = j count.
        add_dot: the weight of the linear kernel, >= 0; the paper's "rq*" has 0.1.

    Returns:
        0-d.

    Raises:
        ValueError: weights; and what `mow_kernels.mmd` raises.

    Source: Binkowski et al., "Demystifying MMD GANs", ICLR 2018, section 3.
    """
    _equal(wts)
    estimator = "biased" if biased else "unbiased"
    return both(mk.mmd, X, Y, kernel="rational_quadratic", alphas=alphas, linear=add_dot, estimator=estimator)


def mix_rbf_mmd2(
    X: Tensor, Y: Tensor, sigmas: Sequence[float] = (1.0,), wts: None = None, biased: bool = True
) -> Tensor:
    """The squared MMD with a mixture of Gaussian kernels, sum_sigma exp(-r/(2 sigma^2)).

        >>> from mow.adapters.mmd_gan import mix_rbf_mmd2
        >>> critic, real = encoder, pictures
        >>> loss = mix_rbf_mmd2(critic(x), critic(real), sigmas=(2, 5, 10, 20, 40, 80))

    Args:
        X, Y, wts, biased: as for `mix_rq_mmd2`.
        sigmas: > 0.

    Returns:
        0-d.

    Raises:
        ValueError: weights; and what `mow_kernels.mmd` raises.

    Source: Li et al., "MMD GAN: Towards Deeper Understanding of Moment Matching Network", NIPS 2017.
    """
    _equal(wts)
    expect(isinstance(X, Tensor), "X", X, "a tensor [n, D]")
    widths = mk.checks.positive_numbers("sigmas", sigmas)
    scales = [sigma**2 / X.shape[-1] for sigma in widths]
    return both(mk.mmd, X, Y, kernel="gaussian", scales=scales, estimator="biased" if biased else "unbiased")


def _equal(wts: object) -> None:
    if wts is not None:
        raise ValueError(f"wts is {wts!r}; it must be None: the kernels of a mixture weigh the same")
