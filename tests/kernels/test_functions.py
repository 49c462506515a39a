"""The public functions around the mathematics: signatures, bad input, dtypes, directions, backends, explain."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import mow_kernels as mk

FUNCTIONS = [mk.mmd, mk.cramer_wold, mk.sliced_wasserstein]
BACKENDS = {"reference", "cpp", "triton", "cuda"}
every_function = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)


# Signatures


@pytest.mark.parametrize(
    ("function", "options"),
    [
        (mk.mmd, {"kernel": "imq", "scales": (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0), "estimator": "unbiased"}),
        (mk.cramer_wold, {"gamma": None, "phi": "exact"}),
        (mk.sliced_wasserstein, {"directions": 50, "p": 2, "generator": None}),
    ],
)
def test_signatures(function, options):
    parameters = inspect.signature(function).parameters
    positional = {name: p.default for name, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD}
    keywords = {name: p.default for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
    assert positional == {"current": inspect.Parameter.empty, "history": None, "prior": "normal"}
    assert keywords == options


# Bad input


@every_function
@pytest.mark.parametrize(
    ("error", "argument", "bad"),
    [
        (TypeError, "current", {"current": [[0.0, 1.0]]}),
        (TypeError, "current", {"current": np.zeros((2, 3))}),
        (TypeError, "current", {"current": torch.zeros(2, 3, dtype=torch.int64)}),
        (TypeError, "current", {"current": torch.zeros(2, 3, dtype=torch.bool)}),
        (TypeError, "current", {"current": torch.zeros(2, 3, dtype=torch.complex64)}),
        (ValueError, "current", {"current": torch.zeros(3)}),
        (ValueError, "current", {"current": torch.zeros(1, 1, 2, 3)}),
        (ValueError, "current", {"current": torch.zeros(0, 3)}),
        (ValueError, "current", {"current": torch.zeros(2, 0)}),
        (TypeError, "history", {"history": np.zeros((2, 3))}),
        (TypeError, "history", {"history": "normal"}),
        (TypeError, "history", {"history": torch.zeros(2, 3, dtype=torch.int64)}),
        (ValueError, "history", {"history": torch.zeros(3)}),
        (ValueError, "history", {"history": torch.zeros(2, 4)}),
        (ValueError, "history", {"history": torch.zeros(0, 4)}),
        ((TypeError, ValueError), "history", {"history": torch.zeros(2, 3, dtype=torch.float64)}),
        (
            (TypeError, ValueError),
            "history",
            {"current": torch.zeros(2, 3, dtype=torch.float64), "history": torch.zeros(2, 3, dtype=torch.float16)},
        ),
        (ValueError, "history", {"history": torch.zeros(2, 3, device="meta")}),
        (TypeError, "prior", {"prior": None}),
        (TypeError, "prior", {"prior": 3}),
        (TypeError, "prior", {"prior": torch.zeros(2, 3, dtype=torch.int64)}),
        (ValueError, "prior.*uniform.*normal", {"prior": "uniform"}),
        (ValueError, "prior", {"prior": torch.zeros(3)}),
        (ValueError, "prior", {"prior": torch.zeros(2, 4)}),
        (ValueError, "prior", {"prior": torch.zeros(0, 3)}),
        ((TypeError, ValueError), "prior", {"prior": torch.zeros(2, 3, dtype=torch.float64)}),
        (ValueError, "prior", {"prior": torch.zeros(2, 3, device="meta")}),
    ],
)
def test_bad_samples(function, error, argument, bad):
    with pytest.raises(error, match=argument):
        function(**({"current": torch.zeros(2, 3), "history": torch.zeros(2, 3)} | bad))


@pytest.mark.parametrize(
    ("function", "error", "argument", "bad"),
    [
        (mk.mmd, ValueError, "kernel.*rbf.*imq.*gaussian", {"kernel": "rbf"}),
        (mk.mmd, (TypeError, ValueError), "kernel", {"kernel": None}),
        (mk.mmd, ValueError, "estimator.*v.*unbiased.*biased", {"estimator": "v"}),
        (mk.mmd, ValueError, "scales", {"scales": ()}),
        (mk.mmd, ValueError, "scales", {"scales": (1.0, 0.0)}),
        (mk.mmd, ValueError, "scales", {"scales": (-1.0,)}),
        (mk.mmd, ValueError, "scales", {"scales": (float("nan"),)}),
        (mk.mmd, ValueError, "scales", {"scales": (float("inf"),)}),
        (mk.mmd, TypeError, "scales", {"scales": 1.0}),
        (mk.mmd, TypeError, "scales", {"scales": ("1",)}),
        (mk.cramer_wold, ValueError, "gamma.*0", {"gamma": 0}),
        (mk.cramer_wold, ValueError, "gamma.*-1", {"gamma": -1.0}),
        (mk.cramer_wold, ValueError, "gamma", {"gamma": float("nan")}),
        (mk.cramer_wold, ValueError, "gamma", {"gamma": float("inf")}),
        (mk.cramer_wold, TypeError, "gamma", {"gamma": "auto"}),
        (mk.cramer_wold, ValueError, "phi.*approximate.*exact.*asymptotic", {"phi": "approximate"}),
        (mk.cramer_wold, ValueError, "phi.*asymptotic", {"phi": "asymptotic", "current": torch.zeros(2, 1)}),
        (mk.sliced_wasserstein, ValueError, "directions.*0", {"directions": 0}),
        (mk.sliced_wasserstein, ValueError, "directions.*-3", {"directions": -3}),
        (mk.sliced_wasserstein, TypeError, "directions", {"directions": True}),
        (mk.sliced_wasserstein, TypeError, "directions", {"directions": 5.0}),
        (mk.sliced_wasserstein, TypeError, "directions", {"directions": None}),
        (mk.sliced_wasserstein, TypeError, "directions", {"directions": "50"}),
        (mk.sliced_wasserstein, ValueError, "directions", {"directions": torch.zeros(5, 3)}),
        (mk.sliced_wasserstein, ValueError, "directions", {"directions": torch.zeros(3)}),
        (mk.sliced_wasserstein, ValueError, "directions", {"directions": torch.zeros(3, 0)}),
        (mk.sliced_wasserstein, ValueError, "directions", {"directions": torch.zeros(3, 5, device="meta")}),
        (mk.sliced_wasserstein, (TypeError, ValueError), "directions", {"directions": torch.zeros(3, 5).double()}),
        (mk.sliced_wasserstein, (TypeError, ValueError), "directions", {"directions": torch.zeros(3, 5).long()}),
        (mk.sliced_wasserstein, ValueError, "p .*0.5", {"p": 0.5, "prior": torch.zeros(2, 3)}),
        (mk.sliced_wasserstein, ValueError, "p ", {"p": float("nan"), "prior": torch.zeros(2, 3)}),
        (mk.sliced_wasserstein, ValueError, "p ", {"p": float("inf"), "prior": torch.zeros(2, 3)}),
        (mk.sliced_wasserstein, TypeError, "p ", {"p": "2", "prior": torch.zeros(2, 3)}),
        (mk.sliced_wasserstein, ValueError, "p .*normal", {"p": 1}),
        (mk.sliced_wasserstein, ValueError, "p .*normal", {"p": 3, "prior": "normal"}),
        (mk.sliced_wasserstein, TypeError, "generator", {"generator": 0}),
    ],
)
def test_bad_options(function, error, argument, bad):
    with pytest.raises(error, match=argument):
        function(**({"current": torch.zeros(2, 3)} | bad))


def test_unbiased_needs_two_rows_on_each_side():
    one, two = torch.zeros(1, 3), torch.ones(2, 3)
    for arguments in ((one,), (one, None, two), (two, None, one), (two, two, one), (one, torch.zeros(0, 3))):
        with pytest.raises(ValueError, match="unbiased"):
            mk.mmd(*arguments)
        assert mk.mmd(*arguments, estimator="biased").isfinite()
    assert mk.mmd(one, one).isfinite()


def test_nan_and_infinity_are_named_when_asked_to_check():
    good = torch.zeros(2, 3)
    for bad in (float("nan"), float("inf"), -float("inf")):
        wrong = good.clone()
        wrong[1, 2] = bad
        for function in FUNCTIONS:
            with mk.check_finite():
                function(good, good, good)
                for name in ("current", "history", "prior"):
                    with pytest.raises(ValueError, match=name):
                        function(**({"current": good, "history": good, "prior": good} | {name: wrong}))
            function(wrong, good, good)  # not asked: a pass over the data less


@every_function
def test_history_and_prior_may_be_of_any_length(function):
    for h in (0, 1, 7):
        assert function(torch.zeros(2, 3), torch.ones(h, 3)).isfinite()
    for m in (2, 7):
        assert function(torch.zeros(2, 3), None, torch.ones(m, 3)).isfinite()


@every_function
@pytest.mark.parametrize("history", [None, torch.zeros(0, 3), torch.zeros(2, 3)], ids=["none", "empty", "rows"])
@pytest.mark.parametrize("prior", ["normal", torch.ones(4, 3)], ids=["normal", "sample"])
def test_samples_that_are_as_they_should_be_are_looked_at_once(function, history, prior, monkeypatch):
    def one_after_the_other(name: str, *_: object, **__: object) -> None:
        raise AssertionError(f"{name} takes the long way, which a small step feels")

    monkeypatch.setattr(mk.checks, "rows", one_after_the_other)
    assert function(torch.zeros(2, 3), history, prior).isfinite()


@every_function
@pytest.mark.parametrize("prior", ["normal", "sample"])
@pytest.mark.parametrize(
    ("dtype", "result"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
    ids=str,
)
def test_result_dtypes(function, prior, dtype, result):
    current, history, sample = (torch.ones(rows, 3, dtype=dtype) for rows in (2, 4, 5))
    value = function(current, history, sample if prior == "sample" else prior)
    assert value.shape == () and value.dtype == result


# Directions


def recipe(dim: int, count: int, seed: int) -> torch.Tensor:
    """The design's: float32 from the generator, each column of length 1."""
    drawn = torch.randn(dim, count, generator=torch.Generator().manual_seed(seed))
    return drawn / drawn.norm(dim=0)


@pytest.mark.parametrize("prior", ["normal", "sample"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=str)
def test_directions_are_drawn_by_the_recipe(randn, dtype, prior):
    """In float64 too they are the float32 draw, normalised in float32 and then cast."""
    current, sample = randn(6, 4).to(dtype), randn(5, 4).to(dtype)
    against = sample if prior == "sample" else prior
    wide = dtype if dtype == torch.float64 else torch.float32
    given = {"directions": recipe(4, 7, seed=5).to(wide)}
    drawn = mk.sliced_wasserstein(current, None, against, directions=7, generator=torch.Generator().manual_seed(5))
    expected = mk.sliced_wasserstein(current.to(wide), None, sample.to(wide) if prior == "sample" else prior, **given)
    assert drawn.item() == pytest.approx(expected.item(), rel=1e-12 if dtype == torch.float64 else 1e-6)


def test_directions_follow_the_generator(randn):
    current = randn(6, 4)
    generator = torch.Generator().manual_seed(5)
    first, second = (mk.sliced_wasserstein(current, generator=generator) for _ in range(2))
    assert first != second
    generator.manual_seed(5)
    assert mk.sliced_wasserstein(current, generator=generator) == first
    assert mk.sliced_wasserstein(current, directions=50, generator=generator) == second


def test_directions_follow_the_global_seed_without_a_generator(randn):
    current = randn(6, 4)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        value = mk.sliced_wasserstein(current)
        torch.manual_seed(5)
        assert mk.sliced_wasserstein(current) == value
        assert mk.sliced_wasserstein(current) != value
    expected = mk.sliced_wasserstein(current, generator=torch.Generator().manual_seed(5))
    assert value == expected


def test_given_directions_draw_nothing(randn):
    state = torch.random.get_rng_state()
    generator = torch.Generator()
    before = generator.get_state()
    mk.sliced_wasserstein(randn(3, 2), directions=randn(2, 4), generator=generator)
    assert torch.equal(torch.random.get_rng_state(), state) and torch.equal(generator.get_state(), before)


# Backends


def runs() -> bool:
    """Whether a call on the CPU runs: not while "cuda" is asked for."""
    try:
        mk.mmd(torch.zeros(2, 3))
    except ValueError:
        return False
    return True


def test_use_backend_nests_and_restores():
    with mk.use_backend("reference"):
        assert mk.explain(mk.mmd, torch.zeros(2, 3)).backend == "reference"
        with mk.use_backend("cuda"):
            assert not runs()
            with mk.use_backend("auto"):
                assert runs()
            assert not runs()
        assert mk.explain(mk.mmd, torch.zeros(2, 3)).backend == "reference"
    with mk.use_backend("cuda"):
        pass
    assert runs()


def test_use_backend_restores_after_an_exception():
    with pytest.raises(RuntimeError, match="on purpose"), mk.use_backend("cuda"):
        raise RuntimeError("on purpose")
    assert runs()


@pytest.mark.parametrize("name", ["fast", "", "Reference", None])
def test_an_unknown_backend_is_refused_and_changes_nothing(name):
    with mk.use_backend("cuda"):
        with pytest.raises((TypeError, ValueError), match="reference.*auto"), mk.use_backend(name):
            pytest.fail("entered")
        assert not runs()
    assert runs()


@every_function
def test_a_backend_that_cannot_run_here_says_why(function):
    current = torch.zeros(2, 3)  # on the CPU
    with mk.use_backend("cuda"):
        reason = mk.explain(function, current).reasons["cuda"]
        assert reason
        with pytest.raises(ValueError) as caught:
            function(current)
    assert "cuda" in str(caught.value) and reason in str(caught.value)


def test_the_environment_variable():
    """Read in a fresh process: the setting, what an unknown one gets, and use_backend over either."""
    script = """if True:
        import sys, torch, mow_kernels as mk
        z = torch.zeros(2, 3)
        try:
            print(mk.explain(mk.mmd, z).backend, mk.mmd(z).item() == mk.mmd(z).item())
        except ValueError as error:
            print(error)
        with mk.use_backend("reference"):
            print(mk.explain(mk.mmd, z).backend)
    """

    def lines(value: str) -> list[str]:
        environment = {**os.environ, "MOW_BACKEND": value, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", script]
        return subprocess.check_output(command, env=environment, text=True).splitlines()

    assert lines("reference") == ["reference True", "reference"]
    unknown, inside = lines("fast")
    assert "MOW_BACKEND" in unknown and "fast" in unknown and "reference" in unknown and inside == "reference"


def test_the_import_brings_no_compiler():
    """PyTorch's takes as long to import as all the rest of it."""
    script = (
        "import sys, mow; print(*sorted({'torch._dynamo', 'torch._inductor', 'sympy', 'triton'} & sys.modules.keys()))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.check_output([sys.executable, "-c", script], env=environment, text=True).strip() == ""


# explain


@every_function
def test_explain_names_the_backend_and_why_not_the_others(function):
    with mk.use_backend("reference"):
        explanation = mk.explain(function, torch.zeros(2, 3), prior=torch.zeros(4, 3))
    assert explanation.backend == "reference"
    assert set(explanation.reasons) == BACKENDS - {"reference"}
    assert all(isinstance(reason, str) and reason for reason in explanation.reasons.values())
    text = str(explanation)
    assert function.__name__ in text and "reference" in text
    assert all(name in text and reason in text for name, reason in explanation.reasons.items())


@every_function
def test_explain_answers_for_the_whole_call(function):
    explanation = mk.explain(function, torch.zeros(2, 3), torch.zeros(1, 3), torch.zeros(4, 3))
    assert explanation.backend in BACKENDS
    assert set(explanation.reasons) | {explanation.backend} == BACKENDS


@every_function
def test_explain_runs_nothing(function):
    """Ten million rows against as many would need 10^15 operations and an impossible matrix."""
    many = torch.zeros(1, 1).expand(10_000_000, 8)
    state = torch.random.get_rng_state()
    generator = torch.Generator()
    before = generator.get_state()
    options = {"generator": generator} if function is mk.sliced_wasserstein else {}
    assert mk.explain(function, many, many, many).backend
    assert mk.explain(function, many, many, many, **options).backend
    assert torch.equal(torch.random.get_rng_state(), state) and torch.equal(generator.get_state(), before)


@every_function
def test_explain_refuses_what_the_call_refuses(function):
    with pytest.raises(ValueError, match="current"):
        mk.explain(function, torch.zeros(0, 3))
    with pytest.raises(TypeError):
        mk.explain(function, torch.zeros(2, 3), nonsense=1)


def test_explain_knows_the_public_functions_alone():
    with pytest.raises((TypeError, ValueError), match="function"):
        mk.explain(torch.add, torch.zeros(2, 3))


# torch.compile


@pytest.mark.parametrize("prior", ["normal", "sample"])
@pytest.mark.parametrize(
    ("function", "options"),
    [
        (mk.mmd, {}),
        (mk.mmd, {"kernel": "gaussian", "estimator": "biased"}),
        (mk.cramer_wold, {}),
        (mk.cramer_wold, {"phi": "asymptotic", "gamma": 0.5}),
        (mk.sliced_wasserstein, {}),
        (mk.sliced_wasserstein, {"directions": torch.eye(4, dtype=torch.float64)}),
    ],
    ids=["mmd", "mmd-gaussian", "cramer_wold", "cramer_wold-asymptotic", "drawn", "given"],
)
@pytest.mark.usefixtures("backend")
def test_compiles_without_a_graph_break(randn, function, options, prior):
    history, sample = randn(5, 4), randn(6, 4)
    rows = randn(2, 4)
    results = []
    torch.compiler.reset()  # or the cases here add up to Dynamo's limit of recompilations
    for call in (function, torch.compile(function, fullgraph=True, backend="eager")):
        current = rows.clone().requires_grad_()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            value = call(current, history, sample if prior == "sample" else prior, **options)
        value.backward()
        results.append((value.detach(), current.grad))
    torch.testing.assert_close(results[0], results[1])


def test_constants_of_graphs_are_plain() -> None:
    """torch.compile of PyTorch 2.11 takes no named tuple for a constant, and no property computed once."""
    for path in Path(mk.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text())
        classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
        named = {node.name for node in classes if "NamedTuple" in map(ast.unparse, node.bases)}
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
                assert "functools.cached_property" not in decorators, (path, node.name)
                if "constant_in_graphs" in decorators and node.returns is not None:
                    assert not named & {word.id for word in ast.walk(node.returns) if isinstance(word, ast.Name)}, path
