"""The trainer over several processes: the same steps as one process takes with all the new elements."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mow.distributed.gathering import Gathering, gather
from mow.distributed.ranks import Ranks, told_apart
from mow.distributed.sharded_window import ShardedWindow
from mow.training.stream import ShuffledStream
from mow.training.trainer import Trainer
from mow.window.distances import Distance
from mow.window.window import MovingWindow


class DistributedTrainer(Trainer):
    """`Trainer` over the ranks of torch.distributed: each encodes and decodes its share of the k new elements.

    The weights are those of a single process with the same k, data and seed, whatever the number of ranks, up to
    rounding; docs/distributed.md derives it. A step has one collective besides DistributedDataParallel's averaging of
    the gradients: latents alone are gathered, while the decoder works. A re-encoded latent is pushed with the gathering
    of the next step.

    Every rank makes the same calls. Where a distance or a prior draws random numbers, the random states of the ranks
    must agree: begin with the same seed, and give both a generator if the model draws as well (dropout). Batch norm
    sees the rank's own elements; `torch.nn.SyncBatchNorm` sees all.

    Args:
        window: a `MovingWindow`, the same in every rank, or a `ShardedWindow`.
        k: new elements a step over all ranks, W <= k <= n; the ranks' shares differ by at most one.
        group: the process group, None for all processes.
        The others are those of `Trainer`, without cuda_graph and refresh. Weights and distance begin as rank 0's.

    Raises:
        TypeError, ValueError: a bad argument, by name.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        distance: Distance,
        window: MovingWindow | ShardedWindow,
        *,
        k: int = 1,
        group: dist.ProcessGroup | None = None,
        **options: Any,
    ) -> None:
        if options.get("cuda_graph"):
            raise ValueError("cuda_graph is True; a step with collectives between ranks is not captured")
        if options.get("refresh") is not None:
            raise ValueError(f"refresh is {options['refresh']}; over ranks it must be None")
        super().__init__(encoder, decoder, distance, window, k=k, **options)  # type: ignore[arg-type]  # either window
        self.ranks = Ranks.of(group)
        if k < self.ranks.size:
            raise ValueError(f"k is {k} and there are {self.ranks.size} ranks; each needs at least one of the k")
        if self.ranks.size > 1:
            for buffer in distance.buffers():
                dist.broadcast(buffer, group=group, group_src=0)
        self._flag = nn.Parameter(torch.zeros_like(next(encoder.parameters()).flatten()[0]))
        self._joint: nn.Module = _Joint(self)
        if self.ranks.size > 1:
            self._joint = DistributedDataParallel(self._joint, process_group=group)
        self._encoded_again: tuple[Tensor, Sequence[int]] | None = None
        """This rank's latents that are not in the window yet, and how many each rank has."""

    _expected: Sequence[int] | None
    """How many new elements each rank has in this step, where that was known before."""
    _gathering: Gathering
    _counts: Sequence[int]
    _rows: Tensor
    """The latents of this step [K, D] in rank order."""

    def step(self, x: Tensor, *, measure: bool = True, total: int | None = None) -> dict[str, Tensor]:
        """One optimiser step on new elements x [k_r, ...] of each rank, and their latents into the window.

        Args:
            x: this rank's share, also from another device than the window's; it may be empty.
            measure: as for `Trainer.step`; the values take another collective, of two numbers.
            total: the new elements of all ranks, where they are shared out as `Ranks.share` does; None reads from what
                was gathered how many each rank has, for which a GPU has to be waited for.

        Returns, raises:
            as `Trainer.step`, the figures over all ranks and the same in each, without `measure` of this rank's own
            elements; RankError when another rank is lost, RuntimeError when the ranks measured different distances.
        """
        self._expected = None if total is None else self.ranks.counts(total)
        with told_apart(self.steps_done + 1):
            x = x.to(self.window.latents.device)
            z, errors = self._joint(x)
            g_z, distance = self._gradient(z, measure)
            factor, world = self.weight * self._scale(len(x)), self.ranks.size
            if self._backward(world * self._reconstruction(errors), z, world * factor * g_z):
                self._push(x, z)
            self.steps_done += 1
            self.pictures_seen += sum(self._counts)
            return self._figures(errors.detach(), distance, factor)

    def run(
        self,
        pictures: ShuffledStream | Tensor | Sequence[Any],
        steps: int,
        *,
        warm_up: bool = True,
        measured: Callable[[int], bool] = lambda step: True,
    ) -> Iterator[dict[str, Tensor]]:
        """As `Trainer.run`; each rank reads its share of every batch, so `pictures` are the same in every rank."""
        stream = pictures if isinstance(pictures, ShuffledStream) else ShuffledStream(pictures)
        device = self.window.latents.device
        with told_apart(self.steps_done):
            if warm_up and len(self.window) == 0 and self.k < self.window.n:
                counts = self.ranks.counts(stream.following(self.window.n - self.k))
                with torch.no_grad():
                    z = self.encoder(stream.take(self.window.n - self.k, self.ranks.share).to(device))
                self.window.fill(*gather(z, capacity=max(counts), counts=[counts], group=self.ranks.group).wait())
        while self.steps_done < steps:
            total = stream.following(self.k)
            x = stream.take(self.k, self.ranks.share)
            yield self.step(x, measure=measured(self.steps_done + 1), total=total)
        self._push_encoded_again()

    def state_dict(self) -> dict[str, Any]:
        """That of a `Trainer` with these weights and this window, in every rank. All ranks call it."""
        self._push_encoded_again()
        return super().state_dict()

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The latents, which are sent before the decoder begins, those encoded again after the last step with them."""
        z = self.encoder(x)
        again = [] if self._encoded_again is None else [self._encoded_again]
        self._gathering = gather(
            *(rows for rows, _ in again),
            z.detach(),
            capacity=self._capacity,
            counts=[*(counts for _, counts in again), self._expected],
            group=self.ranks.group,
        )
        return z, self._errors(x, z)

    def _gradient(self, z: Tensor, measure: bool) -> tuple[Tensor, Tensor | None]:
        *again, self._rows = self._gathering.wait()
        self._counts = self._gathering.counts[-1]
        for rows in again:
            self.window.push(rows)
        self._encoded_again = None
        if isinstance(self.window, ShardedWindow):
            g_rows, distance = self.window.gradient(self.distance, self._rows, measure=measure)
        else:
            g_rows, distance = self.distance.gradient(self._rows, self.window, measure=measure)
        return g_rows.split(list(self._counts))[self.ranks.rank], distance

    def _reconstruction(self, errors: Tensor) -> Tensor:
        """This rank's share of it: the shares of the ranks add up to the whole, or with the root their gradients do."""
        if self.weighting == "paper":
            return errors.sum()
        k = sum(self._counts)
        if not self.root:
            return errors.sum() / k
        everyone = self.ranks.sum(errors.detach().sum())
        return errors.sum() / (2 * (k * everyone).sqrt())

    def _scale(self, k: int) -> float:
        return super()._scale(sum(self._counts))

    def _backward(self, reconstruction: Tensor, z: Tensor, g_z: Tensor) -> bool:
        """As in one process; the flag's gradient rides with the others and is NaN in every rank once it is in one."""
        self._flag.grad = None
        not_finite = 0 * (reconstruction.detach() + g_z.sum())
        return super()._backward(reconstruction + not_finite * self._flag, z, g_z)

    def _admits(self, total: Tensor) -> bool:
        return super()._admits(total if self._flag.grad is None else self._flag.grad)

    def _push(self, x: Tensor, z: Tensor) -> None:
        if self.k == self.window.n:
            return
        if self.reencode:
            with torch.no_grad():
                self._encoded_again = self.encoder(x), self._counts
        else:
            self.window.push(self._rows)

    def _push_encoded_again(self) -> None:
        """What would have travelled with the next step's latents."""
        if self._encoded_again is not None:
            (rows, counts), self._encoded_again = self._encoded_again, None
            with told_apart(self.steps_done):
                gathering = gather(rows, capacity=self._capacity, counts=[counts], group=self.ranks.group)
                self.window.push(*gathering.wait())

    def _figures(self, errors: Tensor, distance: Tensor | None, factor: float) -> dict[str, Tensor]:
        if distance is None:
            return {"reconstruction": errors.mean()}
        sums = self.ranks.sum(torch.stack([errors.sum().double(), distance.double()]))
        mean = sums[1] / self.ranks.size
        if not torch.isclose(mean, distance.double(), rtol=1e-4, atol=1e-6, equal_nan=True):
            raise RuntimeError(
                f"the distance is {float(distance)} in rank {self.ranks.rank} and {float(mean)} in the mean of the "
                "ranks: their windows, seeds or random states have parted (give distance and prior their generators)"
            )
        total = sums[0].to(errors.dtype)
        reconstruction = super()._reconstruction(total[None] / (1 if self.weighting == "paper" else sum(self._counts)))
        loss = reconstruction + factor * self.distance.transform(distance)
        return {"loss": loss, "reconstruction": total / sum(self._counts), "distance": distance}

    @property
    def _capacity(self) -> int:
        """Of a rank."""
        return -(-self.k // self.ranks.size)


class _Joint(nn.Module):
    """What DistributedDataParallel wraps: one reducer for both networks, and the gathering between them."""

    def __init__(self, trainer: DistributedTrainer) -> None:
        super().__init__()
        self.encoder, self.decoder, self.flag = trainer.encoder, trainer.decoder, trainer._flag
        self._trainer = trainer

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._trainer._forward(x)
