"""The backend and the checks that a `with` block chooses: for its own thread, and for what is compiled in it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from marks import needs_native

import mow_kernels as mk


def backend_here() -> str | None:
    return mk.explain(mk.mmd, torch.zeros(3, 2)).backend


@needs_native
def test_another_thread_does_not_see_the_choice() -> None:
    with ThreadPoolExecutor(1) as other, mk.use_backend("reference"):
        assert backend_here() == "reference"
        assert other.submit(backend_here).result() == "cpp"


@needs_native
def test_blocks_that_end_in_another_order_than_they_began() -> None:
    began, ended = threading.Event(), threading.Event()

    def other() -> tuple[str | None, str | None]:
        with mk.use_backend("cpp"):
            began.set()
            ended.wait(10)
            inside = backend_here()
        return inside, backend_here()

    with ThreadPoolExecutor(1) as pool:
        with mk.use_backend("reference"):
            seen = pool.submit(other)
            began.wait(10)
        assert backend_here() == "cpp"
        ended.set()
        assert seen.result() == ("cpp", "cpp")
    assert mk.use_backend.active == []


@needs_native
def test_a_decorated_function_on_several_threads() -> None:
    both = threading.Barrier(2, timeout=10)

    @mk.use_backend("reference")
    def measured() -> str | None:
        both.wait()
        inside = backend_here()
        both.wait()
        return inside

    with ThreadPoolExecutor(2) as pool:
        assert [each.result() for each in [pool.submit(measured), pool.submit(measured)]] == ["reference"] * 2
    assert backend_here() == "cpp" and mk.use_backend.active == []


def test_blocks_within_blocks_and_an_error() -> None:
    with mk.use_backend("reference"):
        with pytest.raises(RuntimeError, match="on purpose"), mk.use_backend("auto"):
            raise RuntimeError("on purpose")
        assert backend_here() == "reference"


def test_checks_of_another_thread() -> None:
    broken = torch.full((3, 2), torch.nan)
    with ThreadPoolExecutor(1) as other, mk.check_finite():
        with pytest.raises(ValueError, match="NaN"):
            mk.mmd(broken)
        assert other.submit(mk.mmd, broken).result().isnan()
        with mk.check_finite(False):
            assert mk.mmd(broken).isnan()


@needs_native
def test_a_compiled_function_follows_the_choice() -> None:
    graphs: list[str] = []

    def keep(graph: torch.fx.GraphModule, _: object) -> Callable[..., object]:
        graphs.append(graph.code)
        return graph.forward

    torch.compiler.reset()
    compiled, z = torch.compile(mk.mmd, fullgraph=True, backend=keep), torch.randn(3, 2)
    for name in ("reference", "cpp", "auto", "reference"):
        with mk.use_backend(name):
            compiled(z)
    compiled(z)
    assert ["mow_kernels.mmd_fwd" in graph for graph in graphs][:2] == [False, True]
    assert all("mow_kernels.mmd_fwd" in graph for graph in graphs[2:]) and len(graphs) <= 4
