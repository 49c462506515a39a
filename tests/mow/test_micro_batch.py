"""Micro-batches: the gradient of the whole batch from any split, and everything back as it was when one fails."""

from __future__ import annotations

import copy
import functools
import gc
import logging
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import mow
from mow import accumulate, accumulate_coupled
from mow.neighbours import micro_batch
from mow.neighbours.micro_batch import BatchNormWarning

N = 100
RTOL = 1e-12


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(micro_batch._Work, "limits", {})
    monkeypatch.setattr(micro_batch._Work, "row_bytes", {})


@pytest.fixture
def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 4)).double()


def gradients(model: nn.Module) -> list[Tensor]:
    """Its gradients, which are taken away."""
    found = [parameter.grad for parameter in model.parameters()]
    model.zero_grad()
    return found  # type: ignore[return-value]


def whole(loss: Tensor, model: nn.Module) -> tuple[Tensor, list[Tensor]]:
    loss.backward()
    return loss.detach(), gradients(model)


def assert_equal(value: Tensor, found: list[Tensor], expected: tuple[Tensor, list[Tensor]]) -> None:
    torch.testing.assert_close(value, expected[0], rtol=RTOL, atol=0)
    for ours, right in zip(found, expected[1], strict=True):
        assert (ours - right).norm() <= RTOL * right.norm()


# The gradient of the whole


def test_a_mean_from_every_split(model: nn.Module, randn: Any) -> None:
    x, y = randn(N, 6), randn(N, 4)

    def loss_fn(x: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(model(x), y)

    expected = whole(loss_fn(x, y), model)
    for size in range(1, N + 1):
        assert_equal(accumulate(loss_fn, x, y, micro_batch=size), gradients(model), expected)


def test_a_masked_mean_from_every_split(model: nn.Module, randn: Any) -> None:
    x, y = randn(N, 6), randn(N, 4)
    mask = randn(N) > 0.8
    mask[:30] = False  # whole pieces without a row

    def loss_fn(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        return ((model(x) - y).square().sum(1) * mask).sum()

    expected = whole(loss_fn(x, y, mask) / mask.sum(), model)
    for size in range(1, N + 1):
        count = mask.sum() if size % 2 else int(mask.sum())
        total = accumulate(loss_fn, x, y, mask, micro_batch=size, reduction="sum", count=count)
        assert_equal(total, gradients(model), expected)


def test_a_plain_sum(model: nn.Module, randn: Any) -> None:
    x = randn(N, 6)
    expected = whole(model(x).square().sum(), model)
    total = accumulate(lambda x: model(x).square().sum(), x, micro_batch=7, reduction="sum")
    assert_equal(total, gradients(model), expected)


DISTANCES = {
    "mmd": lambda z: mow.MMD()(z),
    "cramer_wold": lambda z: mow.CramerWold(log=True)(z),
    "sliced_wasserstein": lambda z: mow.SlicedWasserstein(directions=torch.eye(4, dtype=z.dtype))(z),
}


@pytest.mark.parametrize("distance", DISTANCES.values(), ids=DISTANCES)
def test_a_coupled_distance_from_every_split(model: nn.Module, randn: Any, distance: Callable[..., Tensor]) -> None:
    x = randn(N, 6)
    expected = whole(distance(model(x)), model)
    for size in range(1, N + 1):
        assert_equal(accumulate_coupled(model, distance, x, micro_batch=size), gradients(model), expected)


@pytest.mark.parametrize("distance", DISTANCES.values(), ids=DISTANCES)
def test_a_whole_auto_encoder_from_every_split(model: nn.Module, randn: Any, distance: Callable[..., Tensor]) -> None:
    x, mask = randn(N, 6), (randn(N) > 0).double()
    decoder = nn.Linear(4, 6).double()
    both = nn.ModuleList([model, decoder])

    def masked(z: Tensor, x: Tensor, mask: Tensor) -> Tensor:
        return ((decoder(z) - x).square().sum(1) * mask).sum()

    def encode(x: Tensor, mask: Tensor) -> Tensor:
        return model(x)

    z = model(x)
    expected = whole(3 * distance(z) + masked(z, x, mask) / mask.sum(), both)
    for size in (1, 7, 32, 99, 100, 500):
        options = {"micro_batch": size, "reduction": "sum", "count": mask.sum()}
        total = accumulate_coupled(encode, lambda z: 3 * distance(z), x, mask, separable=masked, **options)
        assert_equal(total, gradients(both), expected)


def test_what_the_coupled_loss_depends_on_gets_its_gradient(model: nn.Module, randn: Any) -> None:
    x, scale = randn(N, 6), nn.Parameter(torch.tensor(0.7, dtype=torch.float64))
    both = nn.ParameterList([*model.parameters(), scale])
    expected = whole(scale * (model(x).T @ model(x)).square().mean(), both)  # type: ignore[arg-type]
    total = accumulate_coupled(model, lambda z: scale * (z.T @ z).square().mean(), x, micro_batch=9)
    assert_equal(total, gradients(both), expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("k", [1, 3, 10])
@pytest.mark.parametrize("distance", [mow.MMD(), mow.CramerWold(), mow.MMD(estimator="biased")])
def test_a_pass_of_the_moving_window_with_frozen_weights_is_the_two_pass_gradient(
    model: nn.Module, randn: Any, distance: mow.window.distances.Distance, k: int
) -> None:
    x = randn(30, 6)
    window = mow.MovingWindow(30, 4, dtype=torch.float64)
    window.fill(model(x))
    value = accumulate_coupled(model, distance, x, micro_batch=4)
    expected = gradients(model)
    for new in x.split(k):
        z = model(new)
        loss = distance(z, window)
        torch.testing.assert_close(loss.detach(), value)
        loss.backward()
        window.push(z)
    assert_equal(value, gradients(model), (value, expected))


def test_random_numbers_are_the_same_in_both_passes(model: nn.Module, randn: Any) -> None:
    """With noise on the latents, the gradient is that of the very numbers that the distance has seen."""
    x, seen = randn(20, 6), []

    def noisy(x: Tensor) -> Tensor:
        z = model(x)
        seen.append(torch.randn_like(z))
        return z + seen[-1]

    torch.manual_seed(3)
    value = accumulate_coupled(noisy, DISTANCES["mmd"], x, micro_batch=6)
    after = torch.rand(1)
    assert torch.equal(torch.cat(seen[:4]), torch.cat(seen[4:]))
    assert_equal(value, gradients(model), whole(DISTANCES["mmd"](model(x) + torch.cat(seen[:4])), model))

    torch.manual_seed(3)
    for piece in x.split(6):
        noisy(piece)
    assert torch.equal(torch.rand(1), after)  # as after one pass


def test_the_random_numbers_of_the_separable_loss_are_further_ones(model: nn.Module, randn: Any) -> None:
    encoder_noise, decoder_noise = [], []

    def draw(into: list, z: Tensor) -> Tensor:
        into.append(torch.rand(len(z)))
        return z

    accumulate_coupled(
        lambda x: draw(encoder_noise, model(x)),
        DISTANCES["mmd"],
        randn(12, 6),
        separable=lambda z, x: draw(decoder_noise, z).square().mean(),
        micro_batch=4,
    )
    drawn = torch.cat(encoder_noise[:3] + decoder_noise)
    assert len(drawn.unique()) == 24


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_loss_is_summed_in_float32_at_least(dtype: torch.dtype) -> None:
    weight = torch.ones(1, requires_grad=True)
    total = accumulate(lambda x: (weight * x).mean().to(dtype), torch.full((4096, 1), 0.1), micro_batch=1)
    assert total.dtype == torch.float32 and not total.requires_grad and total.dim() == 0
    assert float(total) == pytest.approx(0.1, rel=1e-3)


def test_gradients_are_added_to_those_that_are_there(model: nn.Module, randn: Any) -> None:
    x = randn(10, 6)
    _, once = whole(model(x).mean(), model)
    model(x).mean().backward()
    before = [parameter.grad for parameter in model.parameters()]
    accumulate(lambda x: model(x).mean(), x, micro_batch=3)
    for parameter, its, right in zip(model.parameters(), before, once, strict=True):
        assert parameter.grad is its
        torch.testing.assert_close(its, 2 * right)


def test_inputs_may_be_leaves_that_want_a_gradient(randn: Any) -> None:
    x = randn(10, 3).requires_grad_()
    accumulate(lambda x: x.square().mean(), x, micro_batch=4)
    torch.testing.assert_close(x.grad, 2 * x.detach() / 30)


# When memory runs out


class FailInBackward(torch.autograd.Function):
    """Passes on; backward runs out of memory, after gradients further down the line have been written."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, error: Exception) -> Tensor:
        ctx.error = error
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g_out: Tensor) -> tuple[Tensor, None]:
        raise ctx.error


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory"),
    MemoryError(),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes."),
]


def failing(model: nn.Sequential, most: int, error: BaseException, calls: list[int] | None = None) -> Callable:
    """The model, whose backward pass fails between its layers for more than `most` rows."""

    def forward(x: Tensor) -> Tensor:
        if calls is not None:
            calls.append(len(x))
        hidden = model[:2](x)
        return model[2](FailInBackward.apply(hidden, error) if len(x) > most else hidden)

    return forward


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_it_backs_off_and_the_result_is_that_of_the_smaller_pieces(
    model: nn.Sequential, randn: Any, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    x, calls = randn(50, 6), []
    forward = failing(model, 5, error, calls)

    def loss_fn(x: Tensor) -> Tensor:
        return (forward(x) + torch.rand(len(x), 1)).square().mean()

    torch.manual_seed(1)
    with caplog.at_level(logging.WARNING, "mow"):
        value = accumulate(loss_fn, x, micro_batch=20)
    found, after = gradients(model), torch.rand(1)
    assert calls == [20, 10] + [5] * 10
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert "micro_batch=20" in caplog.text and "again with 10" in caplog.text and "again with 5" in caplog.text

    torch.manual_seed(1)
    right = accumulate(lambda x: (model(x) + torch.rand(len(x), 1)).square().mean(), x, micro_batch=5)
    assert torch.equal(value, right) and torch.equal(after, torch.rand(1))
    assert all(map(torch.equal, found, gradients(model)))

    accumulate(loss_fn, x, micro_batch=20)  # remembers
    assert calls[12:] == [5] * 10
    accumulate(loss_fn, x, micro_batch=3)
    assert max(calls[22:]) == 3


def test_what_is_remembered_belongs_to_a_function_or_a_module() -> None:
    identity = micro_batch._identity
    one, other = nn.Linear(2, 2), nn.Linear(2, 2)
    made = [lambda x, model=model: model(x) for model in (one, other)]
    assert identity(made[0]) == identity(made[1])
    assert identity(one) == identity(one) != identity(other)
    assert identity(one.forward) == identity(one.forward) != identity(other.forward)
    wrapped = [functools.wraps(call)(lambda x: x) for call in (len, made[0])]
    assert identity(wrapped[1]) == identity(made[0]) != identity(wrapped[0])
    model = nn.Linear(2, 2)
    remembered, place = {identity(model): 8}, weakref.ref(model)
    del model
    gc.collect()
    assert place() is None and identity(nn.Linear(2, 2)) not in remembered


def test_the_coupled_form_backs_off_too(model: nn.Sequential, randn: Any) -> None:
    x = randn(30, 6)
    value = accumulate_coupled(failing(model, 4, ERRORS[0]), DISTANCES["mmd"], x, micro_batch=16)
    assert_equal(value, gradients(model), whole(DISTANCES["mmd"](model(x)), model))


@pytest.mark.parametrize("error", [*ERRORS, ValueError("bad row"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("present", [True, False])
def test_gradients_are_restored_when_it_fails(
    model: nn.Sequential, randn: Any, error: BaseException, present: bool
) -> None:
    if present:
        model(randn(3, 6)).sum().backward()
    before = [parameter.grad for parameter in model.parameters()]
    values = copy.deepcopy(before)
    sizes: list[int] = []

    def loss_fn(x: Tensor) -> Tensor:
        sizes.append(len(x))
        if len(sizes) % 4 == 0:  # the fourth piece of each attempt, some way into its backward pass
            return failing(model, 0, error)(x).mean()
        return model(x).mean()

    with pytest.raises(type(error)):
        accumulate(loss_fn, randn(40, 6), micro_batch=8, floor=4)
    assert sizes == [8] * 4 + [4] * 4 if micro_batch._is_out_of_memory(error) else [8] * 4
    for parameter, grad, value in zip(model.parameters(), before, values, strict=True):
        assert parameter.grad is grad and (grad is None or torch.equal(grad, value))


def test_the_floor_is_where_it_gives_up(model: nn.Sequential, randn: Any) -> None:
    calls: list[int] = []
    with pytest.raises(torch.OutOfMemoryError):
        accumulate(lambda x: failing(model, 0, ERRORS[0], calls)(x).mean(), randn(40, 6), micro_batch=20, floor=8)
    assert calls == [20, 10, 8]


# Batch norm


NORMS = {
    "batch norm": (lambda: nn.BatchNorm1d(6), True),
    "batch norm without statistics": (lambda: nn.BatchNorm1d(6, track_running_stats=False), True),
    "layer norm": (lambda: nn.LayerNorm(6), False),
    "group norm": (lambda: nn.GroupNorm(2, 6), False),
    "instance norm": (lambda: nn.Sequential(nn.Unflatten(1, (2, 3)), nn.InstanceNorm1d(2), nn.Flatten()), False),
    "frozen batch norm": (lambda: nn.BatchNorm1d(6).eval(), False),
}


@pytest.mark.parametrize("make, warns", NORMS.values(), ids=NORMS)
def test_batch_norm_in_training_mode_warns(make: Callable[[], nn.Module], warns: bool) -> None:
    net, x = nn.Sequential(nn.Linear(6, 6), make(), nn.Linear(6, 1)), torch.randn(8, 6)

    def heard(call: Callable[[], Any]) -> list[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
        return [str(warning.message) for warning in caught if warning.category is BatchNormWarning]

    several = heard(lambda: accumulate(lambda x: net(x).square().mean(), x, micro_batch=4))
    assert bool(several) == warns and all("batch norm in training mode" in message for message in several)
    assert bool(heard(lambda: accumulate_coupled(net, lambda z: z.square().mean(), x, micro_batch=4))) == warns
    assert not heard(lambda: accumulate(lambda x: net(x).square().mean(), x, micro_batch=8))  # one piece is the whole


def test_the_warning_can_be_an_error_and_points_at_the_call() -> None:
    net, x = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)), torch.randn(8, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("error", BatchNormWarning)
        with pytest.raises(BatchNormWarning):
            accumulate(lambda x: net(x).square().mean(), x, micro_batch=4)
    assert all(parameter.grad is None for parameter in net.parameters())
    with pytest.warns(BatchNormWarning) as caught:
        accumulate(lambda x: net(x).square().mean(), x, micro_batch=4)
    assert caught[0].filename == __file__


# "auto"


def test_auto_takes_what_fits(model: nn.Module, randn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x, calls = randn(N, 6), []

    def loss_fn(x: Tensor) -> Tensor:
        calls.append(len(x))
        return model(x).square().mean()

    expected = whole(loss_fn(x), model)
    a_row = 8 * (12 + 4)  # of float64: what tanh and the square save; the input is there already
    monkeypatch.setattr(micro_batch, "_free_memory", lambda device: 30 * a_row / micro_batch.FREE_SHARE)
    calls.clear()
    assert_equal(accumulate(loss_fn, x, micro_batch="auto"), gradients(model), expected)
    assert calls == [2, 4, 30, 30, 30, 10]
    calls.clear()
    monkeypatch.setattr(micro_batch, "_free_memory", lambda device: 1e12)
    accumulate(loss_fn, x, micro_batch="auto")
    assert calls == [N]  # measured once
    calls.clear()
    monkeypatch.setattr(micro_batch, "_free_memory", lambda device: 0)
    accumulate(loss_fn, x, micro_batch="auto", floor=25)
    assert calls == [25] * 4
    assert accumulate(loss_fn, x[:3], micro_batch="auto") and calls[-1] == 3


def test_auto_counts_the_decoder_and_leaves_the_random_state(model: nn.Module, randn: Any) -> None:
    x, sizes = randn(N, 6), []

    def separable(z: Tensor, x: Tensor) -> Tensor:
        sizes.append(len(z))
        return F.dropout(z.repeat(1, 100)).exp().mean()

    torch.manual_seed(2)
    value = accumulate_coupled(model, DISTANCES["mmd"], x, separable=separable, micro_batch="auto")
    assert sizes == [2, 4, N]
    (a_row,) = micro_batch._Work.row_bytes.values()
    assert a_row >= 8 * 400  # what exp saves
    torch.manual_seed(2)
    assert torch.equal(value, accumulate_coupled(model, DISTANCES["mmd"], x, separable=separable, micro_batch=N))


def test_what_is_saved_twice_counts_once(randn: Any) -> None:
    x = randn(10, 6).requires_grad_()
    for forward in (lambda x: x.exp(), lambda x: torch.mul(*[x.exp().view(-1)] * 2)):
        assert micro_batch._saved_bytes(forward, [x]) == 10 * 6 * 8


def test_free_memory_is_the_least_of_the_machine_and_the_container(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(micro_batch, "_CGROUP", tmp_path)
    machine = micro_batch._free_memory(cpu)
    assert machine > 2**20
    for name, text in {"max": "3000", "current": "2500", "stat": "anon 7\ninactive_file 200"}.items():
        (tmp_path / f"memory.{name}").write_text(text + "\n")
    assert micro_batch._free_memory(cpu) == 700
    (tmp_path / "memory.max").write_text("max\n")
    assert micro_batch._free_memory(cpu) > 2**20
    with pytest.raises(ValueError, match="micro_batch is 'auto', but meta"):
        micro_batch._free_memory(torch.device("meta"))


# Devices


def test_pieces_are_moved_to_the_device(model: nn.Module, randn: Any) -> None:
    model = model.to("meta")
    accumulate(lambda x: model(x).mean(), randn(8, 6), micro_batch=3, device="meta")
    assert all(parameter.grad.device.type == "meta" for parameter in model.parameters())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("pinned", [True, False])
def test_pieces_stream_to_a_gpu(model: nn.Module, randn: Any, pinned: bool) -> None:
    x = randn(N, 6).pin_memory() if pinned else randn(N, 6)
    expected = whole(DISTANCES["mmd"](model(x)) + model(x).mean(), model)
    model = model.cuda()
    total = accumulate_coupled(
        model, DISTANCES["mmd"], x, separable=lambda z, x: z.mean(), micro_batch=7, device="cuda"
    )
    assert_equal(total.cpu(), [gradient.cpu() for gradient in gradients(model)], expected)


# Bad input


@pytest.mark.parametrize(
    ("error", "message", "tensors", "options"),
    [
        (TypeError, "tensors is empty", [], {}),
        (TypeError, r"tensors\[1\] is list", [torch.ones(3, 2), [1]], {}),
        (ValueError, r"tensors\[0\] has shape \[\]", [torch.ones(())], {}),
        (ValueError, r"tensors\[0\] has shape \[0, 2\]", [torch.ones(0, 2)], {}),
        (ValueError, r"tensors\[1\] has shape \[4\].*same N", [torch.ones(3, 2), torch.ones(4)], {}),
        (ValueError, r"tensors\[0\] is part of a graph", [torch.ones(3, requires_grad=True) * 2], {}),
        (ValueError, "micro_batch is 0", [torch.ones(3, 2)], {"micro_batch": 0}),
        (TypeError, "micro_batch is 'all'", [torch.ones(3, 2)], {"micro_batch": "all"}),
        (TypeError, "micro_batch is 2.0", [torch.ones(3, 2)], {"micro_batch": 2.0}),
        (ValueError, "floor is 0", [torch.ones(3, 2)], {"floor": 0}),
        (ValueError, "micro_batch is 4 and floor 5", [torch.ones(3, 2)], {"micro_batch": 4, "floor": 5}),
        (ValueError, "reduction is 'none'", [torch.ones(3, 2)], {"reduction": "none"}),
        (ValueError, "count is 3 and reduction 'mean'", [torch.ones(3, 2)], {"count": 3}),
        (ValueError, "count is 0", [torch.ones(3, 2)], {"reduction": "sum", "count": 0}),
        (ValueError, "count is nan", [torch.ones(3, 2)], {"reduction": "sum", "count": float("nan")}),
        (TypeError, "count is '3'", [torch.ones(3, 2)], {"reduction": "sum", "count": "3"}),
        (ValueError, r"count has shape \[2\]", [torch.ones(3, 2)], {"reduction": "sum", "count": torch.ones(2)}),
    ],
)
def test_bad_arguments(error: type[Exception], message: str, tensors: list, options: dict) -> None:
    weight = torch.ones(1, requires_grad=True)
    with pytest.raises(error, match=message):
        accumulate(lambda *pieces: (weight * pieces[0]).sum(), *tensors, **options)
    with pytest.raises(error, match=message):
        accumulate_coupled(lambda *pieces: weight * pieces[0], lambda z: z.sum(), *tensors, **options)
    assert weight.grad is None


@pytest.mark.parametrize(
    ("error", "message", "loss"),
    [
        (TypeError, "loss_fn returned float", lambda w, x: 1.0),
        (ValueError, r"loss_fn returned shape \[2, 3\]", lambda w, x: w * x),
        (ValueError, "loss_fn returned a loss that requires no grad", lambda w, x: x.sum()),
    ],
)
def test_bad_losses(error: type[Exception], message: str, loss: Callable) -> None:
    weight = torch.ones(1, requires_grad=True)
    with pytest.raises(error, match=message):
        accumulate(lambda x: loss(weight, x), torch.ones(4, 3), micro_batch=2)
    assert weight.grad is None


@pytest.mark.parametrize(
    ("error", "message", "encode"),
    [
        (TypeError, "encode returned dict", lambda w, x: {"z": w * x}),
        (ValueError, r"encode returned shape \[1, 3\] for 2 rows", lambda w, x: (w * x)[:1]),
        (ValueError, "encode returned latents that require no grad", lambda w, x: x),
    ],
)
def test_bad_encoders(error: type[Exception], message: str, encode: Callable) -> None:
    weight = torch.ones(1, requires_grad=True)
    with pytest.raises(error, match=message):
        accumulate_coupled(lambda x: encode(weight, x), lambda z: (weight * z).sum(), torch.ones(4, 3), micro_batch=2)
    assert weight.grad is None
