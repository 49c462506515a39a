"""What a distance saves for backward: PyTorch sees when it was changed, and frees it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import mow_kernels as mk

Randn = Callable[..., Tensor]
every_function = pytest.mark.parametrize(
    "function", [mk.mmd, mk.cramer_wold, mk.sliced_wasserstein], ids=lambda function: function.__name__
)


def samples_of(function: Callable[..., Tensor], randn: Randn) -> dict[str, Any]:
    directions = torch.nn.functional.normalize(randn(4, 7), dim=0)
    own = {"directions": directions} if function is mk.sliced_wasserstein else {}
    return {"current": randn(3, 4).requires_grad_(), "history": randn(5, 4), "prior": randn(6, 4), **own}


@every_function
@pytest.mark.parametrize("changed", ["current", "history", "prior", "directions"])
@pytest.mark.parametrize("create_graph", [True, False])
def test_a_change_in_place_before_backward_is_seen_or_does_not_matter(
    backend: str, function: Callable[..., Tensor], changed: str, create_graph: bool, randn: Randn
) -> None:
    samples = samples_of(function, randn)
    if changed not in samples:
        pytest.skip("it has none")
    current = samples["current"]
    (right,) = torch.autograd.grad(function(**samples), current)
    value = function(**samples)
    with torch.no_grad():
        samples[changed].mul_(2)
    try:
        (seen,) = torch.autograd.grad(value, current, create_graph=create_graph)
    except RuntimeError as error:
        assert "modified by an inplace operation" in str(error)
    else:  # the reference may not need it again, a first derivative of the fused ops does not
        assert backend == "reference" or not create_graph
        torch.testing.assert_close(seen, right)


@every_function
@pytest.mark.parametrize("closed_form", [True, False])
def test_backward_frees_what_was_saved(
    backend: str, function: Callable[..., Tensor], closed_form: bool, randn: Randn
) -> None:
    samples = samples_of(function, randn)
    if closed_form:
        samples["prior"] = "normal"
    value, current = function(**samples), samples.pop("current")
    value.backward()
    seen = [weakref.ref(sample) for sample in samples.values() if isinstance(sample, Tensor)]
    samples.clear()
    gc.collect()
    assert current.grad is not None and [reference() for reference in seen] == [None] * len(seen)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        value.backward()
