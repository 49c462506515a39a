"""What is measured: sizes and options, the inputs they stand for, and the right answer in float64."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
from torch import Tensor

import mow_kernels as mk

DISTANCES = ("mmd", "cramer_wold", "sliced_wasserstein")
DIRECTIONS = 50
SEED = 0
SHORT = {"mmd": "mmd", "cramer_wold": "cw", "sliced_wasserstein": "sw"}


@dataclass(frozen=True)
class Case:
    """One row of a table. All candidates of a case get the same inputs, and do the same work where they can."""

    distance: str
    n: int
    k: int
    dim: int = 64
    groups: tuple[str, ...] = ()
    """The tables and plots that the case is part of."""
    what: str = "fwd+bwd"
    """"fwd" is the value alone, "fwd+bwd" the value and the gradient of the k current rows."""
    dtype: str = "float32"
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the public function, beside its inputs."""

    @property
    def name(self) -> str:
        parts = [SHORT[self.distance], *map(str, _tag(self.options)), f"n{self.n}", f"k{self.k}"]
        parts += [f"d{self.dim}"] * (self.dim != 64) + [self.dtype] * (self.dtype != "float32")
        return "-".join(parts + ["fwd"] * (self.what == "fwd"))

    @property
    def prior(self) -> str:
        """Cramer-Wold is compared with N(0, I) in closed form, the others with a sample."""
        return "normal" if self.distance == "cramer_wold" else "sample"

    @property
    def m(self) -> int:
        """Rows of the prior sample: as many as the window has, or none for the closed form."""
        return self.n if self.prior == "sample" else 0

    @property
    def dots(self) -> int:
        """Dot products of length D that the whole distance takes, symmetric pairs once."""
        if self.distance == "sliced_wasserstein":
            return (self.n + self.m) * DIRECTIONS
        return (self.n + self.m) ** 2 // 2

    @property
    def scale(self) -> float:
        """The size of the terms that the value is a difference of."""
        return float(len(self.options.get("scales", mk.SCALES))) if self.distance == "mmd" else 1.0

    def describe(self) -> dict[str, Any]:
        """The case in plain numbers, strings and lists."""
        return {
            "name": self.name,
            "groups": list(self.groups),
            "distance": self.distance,
            "n": self.n,
            "m": self.m,
            "k": self.k,
            "dim": self.dim,
            "prior": self.prior,
            "dtype": self.dtype,
            "what": self.what,
            "options": {name: list(v) if isinstance(v, tuple) else v for name, v in self.options.items()},
        }


def _tag(options: Mapping[str, Any]) -> list[str]:
    return ["gaussian"] if options.get("kernel") == "gaussian" else []


class Inputs(NamedTuple):
    """What the candidates of a case are called with; prior and directions only where the distance takes them."""

    current: Tensor
    history: Tensor
    prior: Tensor | str | None = None
    directions: Tensor | None = None

    def arguments(self, options: Mapping[str, Any]) -> tuple[Any, ...]:
        """In order; the option prior="normal" stands in for a sample."""
        given = self._replace(prior=options["prior"]) if "prior" in options else self
        return tuple(argument for argument in given if argument is not None)


def inputs(case: Case, seed: int = SEED) -> Inputs:
    """Standard normal rows, the same for every case that differs in dtype or in what is computed only."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(getattr(torch, case.dtype))

    current, history = draw(case.k, case.dim).requires_grad_(), draw(case.n - case.k, case.dim)
    prior = draw(case.m, case.dim) if case.prior == "sample" else None
    directions = None
    if case.distance == "sliced_wasserstein":
        directions = torch.nn.functional.normalize(draw(case.dim, DIRECTIONS), dim=0)
    return Inputs(current, history, prior, directions)


def library(distance: str, options: Mapping[str, Any]) -> Callable[..., Tensor]:
    """The public function with its options, as a function of `Inputs.arguments`."""
    return _of_arguments(distance, functools.partial(getattr(mk, distance), **_without_prior(options)))


def library_gradient(distance: str, options: Mapping[str, Any]) -> Callable[..., Tensor]:
    """`mk.gradient` of it, likewise."""
    function = functools.partial(mk.gradient, getattr(mk, distance), **_without_prior(options))
    return _of_arguments(distance, lambda *arguments, **named: function(*arguments, **named)[0])


def _without_prior(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != "prior"}


def _of_arguments(distance: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    if distance == "sliced_wasserstein":
        return lambda current, history, prior, directions: function(current, history, prior, directions=directions)
    return function


@dataclass(frozen=True)
class Candidate:
    """One way to compute a case."""

    name: str
    label: str
    value: Callable[..., Tensor] | None = None
    """Of `Inputs.arguments`, differentiable; timed alone or together with its gradient."""
    gradient: Callable[..., Tensor] | None = None
    """In place of `value`: of `Inputs.arguments`, the gradient itself."""
    work: Callable[[Inputs], Callable[[], object]] | None = None
    """In place of either: what is timed as it stands (a floor)."""
    checks: tuple[str, ...] = ("value", "gradient")
    """What of its result has to match the truth."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the public function, beyond the case's own, for the truth that it is held against."""
    backend: str | None = None
    compiled: bool = False
    threads: int | None = None
    """PyTorch's threads, where they are not the case's."""
    note: str = ""
    missing: str | None = None
    """Why it cannot run here."""

    def calls(self, case: Case, given: Inputs) -> tuple[Callable[[], object], Callable[[], Answer] | None]:
        """What is timed, and what gives the answer to be checked (None for a floor)."""
        if self.work is not None:
            return self.work(given), None
        arguments, current = given.arguments(self.options), given.current
        alone = self.gradient
        if alone is not None:
            return lambda: alone(*arguments), lambda: Answer(math.nan, alone(*arguments).double())
        value: Any = torch.compile(self.value) if self.compiled else self.value

        def gradient() -> tuple[Tensor, ...]:
            return torch.autograd.grad(value(*arguments), current)

        def answer() -> Answer:
            result = value(*arguments)
            return Answer(float(result.detach()), None if forward else torch.autograd.grad(result, current)[0].double())

        forward = case.what == "fwd"
        return (lambda: value(*arguments)) if forward else gradient, answer


class Answer(NamedTuple):
    """What a candidate, or the truth, has for a case."""

    value: float
    gradient: Tensor | None
    """[k, D] in float64; None where the value alone was asked for."""


TOLERANCE = {"float32": (1e-5, 1e-3), "float64": (1e-12, 1e-9)}
"""Of the value, as a share of the terms that it is a difference of, and of the gradient, relative in the L2 norm.

Wide enough for a matrix product's cancellation and for two projections that rounding ranks the other way round.
"""


def errors(case: Case, answer: Answer, right: Answer) -> dict[str, float]:
    """The errors that `TOLERANCE` bounds, the gradient's only where there is one; 1e9 stands for more, and for NaN."""
    found = {"value": abs(answer.value - right.value) / case.scale}
    if answer.gradient is not None and right.gradient is not None:
        found["gradient"] = float((answer.gradient - right.gradient).norm() / right.gradient.norm())
    return {name: error if error < 1e9 else 1e9 for name, error in found.items()}


def truth(case: Case, options: Mapping[str, Any], seed: int = SEED) -> Answer:
    """Value and gradient by the reference backend in float64, for the inputs as rounded to the case's dtype."""
    key = (case.distance, case.n, case.k, case.dim, case.dtype, str(sorted(options.items())), seed)
    if key not in _truths:
        widened = (None if x is None else x.detach().double() for x in inputs(case, seed))
        wide = Inputs(*widened)  # type: ignore[arg-type]  # mypy loses the types of the fields
        wide.current.requires_grad_()
        with mk.use_backend("reference"):
            value = library(case.distance, options)(*wide.arguments(options))
            _truths[key] = Answer(float(value.detach()), torch.autograd.grad(value, wide.current)[0])
    return _truths[key]


_truths: dict[Any, Answer] = {}

_ASYMPTOTIC = {"phi": "asymptotic"}
"""The phi of the public Cramer-Wold code, and so of the naive code."""


def _each(n: int, k: int, *groups: str, **changes: Any) -> list[Case]:
    options = {"mmd": {}, "cramer_wold": _ASYMPTOTIC, "sliced_wasserstein": {}}
    return [Case(name, n, k, groups=groups, options=options[name], **changes) for name in DISTANCES]


MAIN = [*_each(64, 1, "main"), *_each(4096, 64, "main")]

FULL = [
    *MAIN,
    *(replace(case, groups=("fwd",), what="fwd") for case in MAIN),
    *_each(64, 1, "float64", dtype="float64"),
    *(
        Case("mmd", n, k, groups=("gaussian",), options={"kernel": "gaussian", "scales": (1.0,), "estimator": "biased"})
        for n, k in ((64, 1), (4096, 64))
    ),
    *(case for n in (16, 256, 1024, 4096) for case in _each(n, 1, "scaling")),
    *(case for k in (32, 1024) for case in _each(1024, k, "scaling")),
    *(case for dim in (8, 20, 256) for case in _each(1024, 1, "scaling", dim=dim)),
]
"""Every case of a full run."""

QUICK = [*_each(64, 1, "main"), *_each(1024, 64, "main")]
"""A first impression in two minutes."""

MEMORY = _each(16384, 64, "memory")
"""Where an n x m matrix of float32 takes 1 GiB."""


def matching(names: Iterable[str], patterns: Iterable[str]) -> set[str]:
    """The names that match one of the patterns ("mmd-*"), or all names when there are none.

    Raises:
        ValueError: a pattern matches nothing.
    """
    names, patterns = list(dict.fromkeys(names)), list(patterns)
    chosen: set[str] = set() if patterns else set(names)
    for pattern in patterns:
        found = {name for name in names if fnmatchcase(name, pattern)}
        if not found:
            raise ValueError(f"cases is {pattern!r}, which matches none of: {', '.join(names)}")
        chosen |= found
    return chosen
