"""The window against a plain list of rows."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mow import MovingWindow

BAD_ROWS = {
    "not a tensor": ([[1.0, 2.0]], TypeError, "list"),
    "None": (None, TypeError, "NoneType"),
    "integers": (torch.ones(1, 2, dtype=torch.int64), TypeError, "int64"),
    "booleans": (torch.ones(1, 2, dtype=torch.bool), TypeError, "bool"),
    "a vector": (torch.ones(2), ValueError, r"\[2\]"),
    "three axes": (torch.ones(1, 1, 2), ValueError, r"\[1, 1, 2\]"),
    "another width": (torch.ones(1, 3), ValueError, r"\[1, 3\].*\[k, 2\]"),
    "no rows": (torch.ones(0, 2), ValueError, r"\[0, 2\]"),
    "another device": (torch.ones(1, 2, device="meta"), ValueError, "meta"),
}


def numbered(start: int, rows: int) -> Tensor:
    """Rows [i, -i] for i = start, start + 1, ..."""
    count = torch.arange(start, start + rows, dtype=torch.float32)
    return torch.stack([count, -count], dim=1)


def contents(window: MovingWindow) -> list[list[float]]:
    """All that a window answers, for every k."""
    return [window.history(k).tolist() for k in range(1, window.n + 2)]


def filled(n: int = 4, rows: int = 6) -> MovingWindow:
    window = MovingWindow(n, 2)
    window.push(numbered(1, rows))
    return window


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 7),
    actions=st.lists(st.tuples(st.sampled_from(["push", "push", "push", "fill", "reload"]), st.integers(1, 10))),
)
def test_the_history_is_the_tail_of_a_plain_list(n: int, actions: list[tuple[str, int]]) -> None:
    window, rows, number = MovingWindow(n, 2), [], 1
    for action, count in actions:
        if action == "reload":
            state, window = window.state_dict(), MovingWindow(n, 2)
            window.load_state_dict(state)
        else:
            new = numbered(number, count)
            number += count
            getattr(window, action)(new)
            rows = ([] if action == "fill" else rows) + new.tolist()
        rows = rows[-n:]
        assert len(window) == len(rows)
        for k in range(1, n + 3):
            count = min(len(rows), max(0, n - k))
            history = window.history(k)
            assert history.shape == (count, 2)
            assert history.tolist() == rows[len(rows) - count :]


def test_a_new_window_is_empty() -> None:
    window = MovingWindow(4, 3)
    assert len(window) == 0
    assert window.history(1).shape == (0, 3)


def test_push_keeps_the_newest_of_more_than_n_rows() -> None:
    window = filled(rows=3)
    window.push(numbered(10, 9))
    assert len(window) == 4
    assert window.history(1)[:, 0].tolist() == [16, 17, 18]


def test_fill_forgets_what_was_there() -> None:
    window = filled(rows=6)
    window.fill(numbered(20, 2))
    assert len(window) == 2
    assert window.history(1)[:, 0].tolist() == [20, 21]


def test_a_window_of_one_row_has_no_history() -> None:
    window = MovingWindow(1, 2)
    for number in range(3):
        window.push(numbered(number, 1))
        assert len(window) == 1
        assert window.history(1).shape == (0, 2)
    window.push(numbered(7, 5))
    assert window.latents.tolist() == [[11, -11]]


def test_push_detaches_and_copies() -> None:
    window = MovingWindow(4, 2)
    z = numbered(1, 2).requires_grad_()
    window.push(z)
    with torch.no_grad():
        z.mul_(100)
    history = window.history(1)
    assert not history.requires_grad and not window.latents.requires_grad
    assert history[:, 0].tolist() == [1, 2]


def test_a_history_is_a_copy_that_later_pushes_leave_alone() -> None:
    window = filled()
    before = window.history(1)
    kept = before.clone()
    window.push(numbered(50, 4))
    assert torch.equal(before, kept)
    window.history(1).zero_()
    assert window.history(1)[:, 0].tolist() == [51, 52, 53]


def test_a_window_takes_its_own_rows() -> None:
    window = filled(n=5, rows=7)
    window.fill(window.history(2))
    assert window.history(1)[:, 0].tolist() == [5, 6, 7]
    window.push(window.history(3))
    assert window.history(1)[:, 0].tolist() == [6, 7, 6, 7]


def test_pushed_rows_take_the_windows_dtype() -> None:
    window = MovingWindow(3, 2, dtype=torch.float64)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        window.push(torch.full((1, 2), 0.5, dtype=dtype))
    assert window.history(1).dtype == torch.float64
    assert window.history(1).tolist() == [[0.5, 0.5], [0.5, 0.5]]


# State


@pytest.mark.parametrize("rows", [0, 1, 3, 4, 5, 9])
def test_state_dict_round_trip(rows: int) -> None:
    window, other = MovingWindow(4, 2), filled(rows=5)
    if rows:
        window.push(numbered(1, rows))
    file = io.BytesIO()
    torch.save(window.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert len(other) == len(window)
    for number in range(20, 23):  # the place of the next push is part of the state
        assert contents(other) == contents(window)
        for each in (window, other):
            each.push(numbered(number, 1))


def test_the_state_of_a_model_holds_its_window() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.window = MovingWindow(4, 2)

    model, other = Model(), Model()
    model.window.push(numbered(1, 6))
    other.load_state_dict(model.state_dict())
    assert len(other.window) == 4
    assert contents(other.window) == contents(model.window)


def test_deepcopy_is_independent() -> None:
    window = filled()
    other = copy.deepcopy(window)
    before = contents(window)
    other.push(numbered(90, 2))
    assert contents(window) == before
    assert other.history(1)[:, 0].tolist() == [6, 90, 91]
    other.load_state_dict(MovingWindow(4, 2).state_dict())  # the copy reads its own length, not the original's
    assert (len(other), len(window)) == (0, 4)


def test_to_float64() -> None:
    window = filled()
    before = contents(window)
    window.to(torch.float64)
    assert window.history(1).dtype == torch.float64
    assert contents(window) == before
    window.push(torch.tensor([[1 / 3, 1 / 7]], dtype=torch.float64))
    assert window.history(2).tolist() == [[6, -6], [1 / 3, 1 / 7]]
    assert len(window) == 4


def test_the_window_has_no_parameters() -> None:
    assert list(filled().parameters()) == []


# Bad input


@pytest.mark.parametrize("method", ["push", "fill"])
@pytest.mark.parametrize("case", BAD_ROWS)
def test_bad_rows_leave_the_window_as_it_was(case: str, method: str) -> None:
    rows, kind, message = BAD_ROWS[case]
    window = filled()
    before, state = contents(window), copy.deepcopy(window.state_dict())
    with pytest.raises(kind, match=f"z .*{message}"):
        getattr(window, method)(rows)
    assert contents(window) == before and len(window) == 4
    assert all(torch.equal(value, state[name]) for name, value in window.state_dict().items())


@pytest.mark.parametrize("n", [3, 8])
def test_the_state_of_another_window_leaves_this_one_as_it_was(n: int) -> None:
    window, other = filled(rows=6), MovingWindow(n, 2)
    other.push(numbered(30, n - 1))
    before = contents(window)
    with pytest.raises((RuntimeError, ValueError)):
        window.load_state_dict(other.state_dict())
    assert len(window) == 4
    assert contents(window) == before


@pytest.mark.parametrize("k, kind", [(0, ValueError), (-1, ValueError), (True, TypeError), (1.0, TypeError)])
def test_history_of_a_bad_k(k: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=f"k is {k}"):
        filled().history(k)


@pytest.mark.parametrize("value, kind", [(0, ValueError), (-3, ValueError), (2.0, TypeError), (True, TypeError)])
@pytest.mark.parametrize("name", ["n", "dim"])
def test_a_bad_size(name: str, value: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=f"^{name} is {value}"):
        MovingWindow(**{"n": 4, "dim": 2, name: value})
