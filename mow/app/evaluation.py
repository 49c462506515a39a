"""How good an auto-encoder is on pictures it has not seen."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import mow_kernels as mk
from mow.app.features import Features, inception_distance, inception_is_here
from mow.training.passes import AT_ONCE, at_once, decode, encode, evaluating
from mow.training.stream import to_unit_range
from mow.window import priors

if TYPE_CHECKING:
    from mow.app.data import LazyPictures

LATENTS = 2000
"""How many latents the Cramer-Wold distance of an evaluation compares: it depends on their number."""


def evaluate(
    encoder: nn.Module, decoder: nn.Module, pictures: Tensor | LazyPictures, *, batch: int = AT_ONCE[0]
) -> dict[str, float]:
    """Scores on test pictures [N, C, H, W], in evaluation mode and without drawing random numbers.

    Returns:
        test_reconstruction: the mean over all pictures of the sum of squares of the error, on the scale [0, 1] a pixel;
        test_cramer_wold: the exact Cramer-Wold distance of the latents of the first 2,000 pictures (of all, when they
        are fewer) to N(0, I).
    """
    device = next(encoder.parameters()).device
    errors, latents = [], []
    with evaluating(encoder, decoder):
        for chunk in pictures.split(min(batch, at_once(pictures.shape[1:]))):
            x = to_unit_range(chunk).to(device)
            z = encoder(x)
            errors.append((decoder(z) - x).square().flatten(1).sum(1).double())
            latents.append(z)
        distance = mk.cramer_wold(torch.cat(latents)[:LATENTS].double())
    return {"test_reconstruction": float(torch.cat(errors).mean()), "test_cramer_wold": float(distance)}


SUBSETS, PRIOR_DRAWS = 5, 3
"""What the paper's tables average the CWAE and the WAE distance over: subsets of LATENTS rows, prior draws."""

DIRECTIONS = 1000
"""The directions of the sliced-Wasserstein distance of a score."""

FID, FRECHET = "test_fid", "test_frechet_classifier"
INCEPTION_KERNELS = "test_kid", "test_mmd_gaussian_inception"
CLASSIFIER_KERNELS = "test_mmd_polynomial_classifier", "test_mmd_gaussian_classifier"
"""The scores that compare generated pictures with real ones: by normal distributions, and by two kernels."""

SIGMA, PER_MILLE = 10.0, 1000.0
"""The width of the Gaussian kernel, and what its MMD is multiplied by, as CMMD has them (Jayasumana et al. 2024)."""

SAMPLES = 10_000
"""Generated pictures that the Frechet distance of a score compares, and at most so many test pictures."""


def score(
    encoder: nn.Module,
    decoder: nn.Module,
    pictures: Tensor | LazyPictures,
    *,
    prior: str = "normal",
    features: Features | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """The scores of the paper's tables on test pictures [N, C, H, W], beside those of `evaluate`.

    What is drawn (subsets, prior rows, directions, generated pictures) depends on the seed alone: two models meet the
    same draws. F is over min(N, 2000) latents, since every distance depends on their number.

    Args:
        prior: what generated pictures are decoded from; the distances and moments are to N(0, I) whatever it is.
        features: of a classifier of the data set, see `mow.app.features`.
        seed: of all draws.

    Returns:
        test_reconstruction, test_cramer_wold: as `evaluate` has them.
        test_latents: how many latents the distances compare.
        test_cwae_distance: the tables' CWAE distance, the mean of 5 random subsets, with the asymptotic phi and without
            the factor 1/(2 sqrt(pi)); not for D = 1. It stays above 0 at a perfect prior: .019 at D = 20.
        test_cwae_distance_exact: the same subsets with the exact phi and the factor, `mow_kernels.cramer_wold`.
        test_wae_distance: the tables' WAE distance, the unbiased MMD of a subset to 3 samples of the prior, their mean.
        test_mmd: the unbiased MMD of that subset to N(0, I) in closed form: without the noise of the samples.
        test_sliced_wasserstein: the square of that subset's distance to N(0, I), over 1000 directions.
        test_skewness, test_kurtosis: of Mardia, over all N latents, see `mardia`; near 0 for a normal distribution.
        test_cost_mmd, test_cost_log_mmd, test_cost_log_cw: reconstruction + WAE distance, the cost column of table 1;
            + its logarithm, of tables 2 and 4; + the logarithm of the CWAE distance, of table 3.
        test_fid: of 10,000 generated pictures, with Inception, where it is installed.
        test_kid: of the same, without subsets: the unbiased MMD over all of them, with the kernel (x.y/2048 + 1)^3.
        test_mmd_gaussian_inception: 1000 times the biased MMD over all, with the kernel exp(-|x-y|^2/200): CMMD's, but
            in Inception's features.
        test_frechet_classifier, test_mmd_polynomial_classifier, test_mmd_gaussian_classifier: these three in the
            classifier's features. Neither FID nor KID: they compare within one classifier only.
        left_out: of the scores that are not defined here or not finite the name -> why, where there are any.
    """
    scores: dict[str, Any] = evaluate(encoder, decoder, pictures)
    left_out: dict[str, str] = {}
    z = encode(encoder, pictures).double()
    generator = torch.Generator().manual_seed(seed)
    subsets = [z[torch.randperm(len(z), generator=generator)[:LATENTS]] for _ in range(SUBSETS)]
    scores["test_latents"] = len(subsets[0])
    if z.shape[1] > 1:
        values = [float(mk.cramer_wold(subset, phi="asymptotic")) for subset in subsets]
        scores["test_cwae_distance"] = 2 * math.sqrt(math.pi) * sum(values) / SUBSETS
    else:
        left_out["test_cwae_distance"] = "phi has no asymptotic form for latents of width 1"
    scores["test_cwae_distance_exact"] = sum(float(mk.cramer_wold(subset)) for subset in subsets) / SUBSETS
    subset = subsets[0]
    if len(subset) > 1:
        draws = [priors.sample("normal", len(subset), z, generator) for _ in range(PRIOR_DRAWS)]
        scores["test_wae_distance"] = sum(float(mk.mmd(subset, None, draw)) for draw in draws) / PRIOR_DRAWS
        scores["test_mmd"] = float(mk.mmd(subset))
    else:
        left_out |= dict.fromkeys(("test_wae_distance", "test_mmd"), "one latent has no pairs")
    directions = torch.Generator().manual_seed(seed)
    scores["test_sliced_wasserstein"] = float(
        mk.sliced_wasserstein(subset, directions=DIRECTIONS, generator=directions)
    )
    moments = mardia(z)
    if any(map(math.isnan, moments)):
        left_out |= dict.fromkeys(
            ("test_skewness", "test_kurtosis"), "the covariance of the latents is singular or not finite"
        )
    else:
        scores["test_skewness"], scores["test_kurtosis"] = moments
    reconstruction = scores["test_reconstruction"]
    for name, of in (("mmd", "wae"), ("log_mmd", "wae"), ("log_cw", "cwae")):
        distance = f"test_{of}_distance"
        if distance in left_out:
            left_out[f"test_cost_{name}"] = left_out[distance]
        elif "log" in name and scores[distance] <= 0:
            left_out[f"test_cost_{name}"] = f"{distance} is not positive"
        else:
            value = scores[distance]
            scores[f"test_cost_{name}"] = reconstruction + (math.log(value) if "log" in name else value)
    inception = inception_is_here()
    compared = [name for name, there in ((FID, inception), (FRECHET, features is not None)) if there]
    if len(pictures) < 2:
        left_out |= dict.fromkeys(compared, "one picture has no covariance")
        kernels = (INCEPTION_KERNELS if inception else ()) + (CLASSIFIER_KERNELS if features is not None else ())
        left_out |= dict.fromkeys(kernels, "one picture has no pairs")
    elif compared:
        latents = priors.sample(prior, SAMPLES, z[:1].float(), torch.Generator().manual_seed(seed))
        batch = at_once(pictures.shape[1:])

        def real() -> Iterator[Tensor]:
            return (pictures[i : i + batch] for i in range(0, min(SAMPLES, len(pictures)), batch))

        def generated() -> Iterator[Tensor]:
            return (decode(decoder, piece) for piece in latents.split(batch))

        if inception:
            seen: dict[bool, list[Tensor]] = {True: [], False: []}
            scores[FID] = inception_distance(real(), generated(), features=seen)
            a, b = (torch.cat(seen[is_real]) for is_real in (True, False))
            scores |= zip(INCEPTION_KERNELS, kernel_distances(a, b), strict=True)
        if features is not None:
            a, b = (torch.cat([features.extract(piece) for piece in pieces]) for pieces in (real(), generated()))
            scores[FRECHET] = frechet_distance(a, b)
            scores |= zip(CLASSIFIER_KERNELS, kernel_distances(a, b), strict=True)
    for name in [name for name, value in scores.items() if not math.isfinite(value)]:
        left_out[name] = f"it is {scores.pop(name)}"
    return {**scores, "left_out": left_out} if left_out else scores


def mardia(z: Tensor, *, chunk: int = 1000) -> tuple[float, float]:
    """Mardia's multivariate skewness, and kurtosis less the D(D+2) of a normal distribution, of rows [N, D].

    With y the rows centred and whitened by their own covariance (1/N): skewness = mean_ij (y_i . y_j)^3, whose
    expectation is about D(D+1)(D+2)/N for normal rows, and kurtosis = mean_i |y_i|^4 - D(D+2). NaN where the covariance
    is singular, as it is for N <= D. Source: Mardia 1970, "Measures of multivariate skewness and kurtosis with
    applications".
    """
    rows = z.double()
    z = rows - rows.mean(0)
    covariance, dim, eps = z.T @ z / len(z), z.shape[1], torch.finfo(torch.float64).eps
    deviation = covariance.diagonal().sqrt()
    varies = deviation > 16 * eps * rows.abs().amax(0)  # more than rounding the mean leaves of equal values
    if len(z) <= dim or not varies.all():
        return math.nan, math.nan
    correlation = covariance / deviation.outer(deviation)
    if torch.linalg.matrix_rank(correlation, rtol=16 * dim * eps, hermitian=True) < dim:
        return math.nan, math.nan
    factor = torch.linalg.cholesky(covariance)
    y = torch.linalg.solve_triangular(factor, z.T, upper=False).T
    skewness = sum(float((part @ y.T).pow(3).sum()) for part in y.split(chunk)) / len(y) ** 2
    kurtosis = float(y.square().sum(1).square().mean()) - z.shape[1] * (z.shape[1] + 2)
    return skewness, kurtosis


def mean_picture_error(train: Tensor | LazyPictures, test: Tensor | LazyPictures) -> float:
    """The reconstruction error of predicting the mean training picture for every test picture: the figure to beat.

    Of training pictures in files the mean is over 1,000 or fewer, evenly spaced: to read all would take hours.
    """
    if isinstance(train, Tensor):
        pieces = iter(train.split(AT_ONCE[0]))
    else:
        pieces = (train[row : row + 1] for row in range(0, len(train), -(-len(train) // 1000)))
    total, count = torch.zeros(train.shape[1:], dtype=torch.float64), 0
    for piece in pieces:
        total += to_unit_range(piece).double().sum(0)
        count += len(piece)
    errors = [
        (to_unit_range(piece) - total / count).square().flatten(1).sum(1)
        for piece in test.split(at_once(test.shape[1:]))
    ]
    return float(torch.cat(errors).mean())


def kernel_distances(a: Tensor, b: Tensor) -> tuple[float, float]:
    """Squared MMDs between samples [N, F] and [M, F] over all pairs of rows, N and M >= 2; no matrix of them is formed.

    Returns:
        the unbiased one with the kernel (x.y/F + 1)^3, of which KID is a mean over subsets (Binkowski et al. 2018), and
        1000 times the biased one with exp(-|x-y|^2/(2 10^2)), as CMMD has it in features of CLIP (Jayasumana et al.
        2024, arXiv 2401.09603).
    """
    polynomial = mk.mmd(a, None, b, kernel="polynomial")
    scales = (SIGMA**2 / a.shape[1],)
    gaussian = mk.mmd(a, None, b, kernel="gaussian", scales=scales, estimator="biased")
    return float(polynomial), PER_MILLE * float(gaussian)


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """The squared Frechet distance between the normal distributions fitted to samples [N, F] and [M, F].

    |mean a - mean b|^2 + tr(A + B - 2 (A B)^(1/2)) with the covariances A and B, in float64. It is called FID when the
    F are features of Inception (Heusel et al. 2017, arXiv 1706.08500). NaN where a feature is not finite.

    Raises:
        ValueError: a or b has less than two rows, which have no covariance.
    """
    for name, sample in (("a", a), ("b", b)):
        if len(sample) < 2:
            raise ValueError(f"{name} has shape {list(sample.shape)}; it must be [rows, F] with at least two rows")
    a, b = a.double(), b.double()
    covariance_a, covariance_b = (torch.cov(sample.T).reshape(2 * [sample.shape[1]]) for sample in (a, b))
    if not (covariance_a.isfinite().all() and covariance_b.isfinite().all()):
        return math.nan
    values, vectors = torch.linalg.eigh(covariance_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ covariance_b @ root).clamp(min=0).sqrt().sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + covariance_a.trace() + covariance_b.trace() - 2 * cross)
