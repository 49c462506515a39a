"""The nearest libraries that pip installs, on the same inputs; each optional, with the reason where it is missing."""

from __future__ import annotations

import contextlib
import importlib
import io
import math
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from benchmarks import naive
from benchmarks.cases import Candidate, Case

ANOTHER_KERNEL = "another kernel over the same pairs: a time to compare, not a result"


def peers(case: Case) -> list[Candidate]:
    """What POT, GeomLoss and KeOps have for a case."""
    if case.distance == "sliced_wasserstein":
        return [
            _peer("pot", "POT", "ot", _pot, note="the root that it takes is squared away"),
            Candidate("keops", "KeOps", missing="KeOps has no sort"),
        ]
    if case.distance == "cramer_wold":
        return [_peer("keops", "KeOps", "pykeops.torch", _keops_cramer_wold)]
    if case.options.get("kernel") == "gaussian":
        blur, note = math.sqrt(case.dim * case.options["scales"][0]), "its loss is half the squared MMD"
        return [
            _geomloss("gaussian", "tensorized", blur, note=note),
            _geomloss("gaussian", "online", blur, note=f"{note}; on KeOps"),
        ]
    blur = math.sqrt(case.dim)
    return [
        _peer("keops", "KeOps", "pykeops.torch", _keops_mmd),
        *(_geomloss(loss, "tensorized", blur, note=ANOTHER_KERNEL, checks=()) for loss in ("gaussian", "energy")),
    ]


def _peer(
    name: str, label: str, module: str, build: Callable[[ModuleType], Callable[..., Tensor]], **more: Any
) -> Candidate:
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # KeOps says which compilers it found
            imported = importlib.import_module(module)
        if "pykeops" in sys.modules:
            sys.modules["pykeops"].set_verbose(False)
    except Exception as error:  # whatever a foreign import runs into
        return Candidate(name, label, missing=f"import {module}: {error}")
    return Candidate(name, label, build(imported), **more)


def _pot(ot: ModuleType) -> Callable[..., Tensor]:
    def value(current: Tensor, history: Tensor, prior: Tensor, directions: Tensor) -> Tensor:
        return ot.sliced_wasserstein_distance(torch.cat([history, current]), prior, projections=directions, p=2) ** 2

    return value


def _geomloss(loss: str, backend: str, blur: float, **more: Any) -> Candidate:
    def build(geomloss: ModuleType) -> Callable[..., Tensor]:
        half = geomloss.SamplesLoss(loss, blur=blur, backend=backend)
        return lambda current, history, prior: 2 * half(torch.cat([history, current]), prior)

    return _peer(f"geomloss-{loss}-{backend}", f"GeomLoss {loss} ({backend})", "geomloss", build, **more)


def _keops_mmd(keops: ModuleType) -> Callable[..., Tensor]:
    def imq(x: Tensor, y: Tensor) -> Tensor:
        r = _keops_squared_distances(keops, x, y)
        constants = [2 * x.shape[1] * scale for scale in naive.SCALES]
        return sum(c / (c + r) for c in constants).sum(1).sum()

    def value(current: Tensor, history: Tensor, prior: Tensor) -> Tensor:
        z = torch.cat([history, current])
        n, m, at_zero = len(z), len(prior), len(naive.SCALES)
        zz = (imq(z, z) - n * at_zero) / (n * (n - 1))
        vv = (imq(prior, prior) - m * at_zero) / (m * (m - 1))
        return zz + vv - 2 / (n * m) * imq(z, prior)

    return value


def _keops_cramer_wold(keops: ModuleType) -> Callable[..., Tensor]:
    def value(current: Tensor, history: Tensor) -> Tensor:
        z = torch.cat([history, current])
        n, dim = z.shape
        gamma = (4 / (3 * n)) ** 0.4
        r = _keops_squared_distances(keops, z, z)
        pairs = (gamma + r / (2 * dim - 3)).rsqrt().sum(1).sum() / n**2
        norms = naive.phi(z.square().sum(1), dim, gamma + 0.5).mean()
        return (1 / math.sqrt(1 + gamma) + pairs - 2 * norms) / (2 * math.sqrt(math.pi))

    return value


def _keops_squared_distances(keops: ModuleType, x: Tensor, y: Tensor) -> Any:
    return ((keops.LazyTensor(x[:, None]) - keops.LazyTensor(y[None])) ** 2).sum(-1)
