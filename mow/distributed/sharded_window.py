"""A window whose rows are spread over the ranks: each keeps n / world of them and measures its part of the distance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

import mow_kernels as mk
from mow.checks import positive
from mow.distributed.ranks import Ranks
from mow.window.distances import Distance, KernelDistance
from mow.window.window import (
    Host,
    check_ages,
    check_carried,
    checked_span,
    extra_state,
    move,
    of_extra_state,
    out_of_range,
    window_state,
)

_CHUNK = 2**22
"""Numbers that the differences between new rows and rows of the window may take at once: 16 MiB in float32."""


class ShardedWindow(nn.Module):
    """The newest n rows, of which each of W ranks keeps about n / W: slot s of the ring lies with rank s mod W.

        >>> window = mow.distributed.ShardedWindow(n=64, dim=8)
        >>> window.push(z.detach())
        >>> len(window)
        4

    All ranks make the same calls in the same order, with the same rows. A distance is one to N(0, I) in closed form
    whose row in `mow_kernels` says what its value is made of (`mow_kernels.to_normal`), in plain PyTorch. What a step
    with K new rows computes and sends stands in docs/distributed.md.

    What it holds is what its buffers say, whoever wrote them, but the latents are another part in every rank: no other
    rank's may be copied over them (`DistributedDataParallel(broadcast_buffers=False)`, where it is part of a module).
    Its `state_dict` is that of a `MovingWindow` with all n rows, on the CPU, in every rank: either loads the other's,
    in any number of ranks.

    Args:
        n: window size over all ranks, >= 1.
        dim: latent width D, >= 1.
        dtype, device: of the latents, in which the distance is computed; PyTorch's defaults.
        group: the process group, None for all processes.

    Raises:
        ValueError, TypeError: n or dim is not a positive integer.
    """

    latents: Tensor
    """This rank's slots [about n / W, D]."""
    head: Tensor
    """0-d int64, the slot of the ring that the next push writes first."""
    count: Tensor
    """0-d int64, the rows present."""
    _newer: Tensor
    """The sum of the radial function of `_pairs` over the rows newer than each slot's, float64."""
    _pairs: mk.Pairwise | None

    def __init__(
        self,
        n: int,
        dim: int,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        super().__init__()
        self.n, self.dim, self.ranks = positive("n", n), positive("dim", dim), Ranks.of(group)
        slots = self._local(n)
        self.register_buffer("latents", torch.zeros(slots, dim, dtype=dtype, device=device))
        self.register_buffer("_newer", torch.zeros(slots, dtype=torch.float64, device=device), persistent=False)
        self.register_buffer("head", torch.zeros((), dtype=torch.int64, device=device))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64, device=device))
        self.span = self.n
        self._pairs = None
        self.host = Host(0, 0)
        self.host.agree(self._buffers)

    def __len__(self) -> int:
        return self._look()[1]

    def push(self, rows: Tensor) -> None:
        """Append rows [K, D], detached and copied, and drop the oldest beyond n; the same rows in every rank.

        Raises:
            TypeError, ValueError: not such rows; the window stays as it was.
        """
        self._check(rows)
        head, length = self._look()
        rows = rows.detach()[-self.n :].to(self.latents.dtype)
        count = len(rows)
        stay = min(length, self.n - count)
        newer = self._newer_among(rows)
        if self._pairs is not None:
            for part in self._parts(stay):
                for chunk in self._chunks(part, count):
                    self._newer[chunk] += self._pairs.matrix(self.latents[chunk], rows).sum(1, dtype=torch.float64)
        slots = torch.arange(head, head + count) % self.n
        own = (slots % self.ranks.size == self.ranks.rank).nonzero()[:, 0]
        places = slots[own].to(self.latents.device) // self.ranks.size
        own = own.to(self.latents.device)
        self.latents[places], self._newer[places] = rows[own], newer[own]
        self._stand((head + count) % self.n, stay + count)

    def measure_over(self, span: int | None) -> None:
        """`MovingWindow.measure_over`, in every rank alike."""
        self.span = checked_span(span, self.n)

    def at(self, ages: Sequence[int]) -> Tensor:
        """`MovingWindow.at`, the same rows in every rank: one collective."""
        head, length = self._look()
        check_ages(ages, length)
        found = self.latents.new_zeros(len(ages), self.dim)
        for i, age in enumerate(ages):
            slot = (head - age) % self.n
            if slot % self.ranks.size == self.ranks.rank:
                found[i] = self.latents[slot // self.ranks.size]
        return self.ranks.sum(found)

    @torch.no_grad()
    def carry(self, matrix: Tensor, shift: Tensor, ages: Sequence[int], rows: Tensor) -> None:
        """`MovingWindow.carry`, with the same arguments in every rank."""
        head, length = self._look()
        check_ages(ages, length)
        check_carried(len(ages), rows, self.dim)
        latents = self.latents
        move(latents, matrix, shift)
        for age, row in zip(ages, rows, strict=True):
            slot = (head - age) % self.n
            if slot % self.ranks.size == self.ranks.rank:
                latents[slot // self.ranks.size] = row
        self._pairs = None
        self.host.agree(self._buffers)

    def fill(self, rows: Tensor) -> None:
        """Start afresh with these rows; arguments and errors as for `push`."""
        self._check(rows)
        self._pairs = None
        self._stand(0, 0)
        self.push(rows)

    def gradient(self, distance: Distance, rows: Tensor, *, measure: bool = True) -> tuple[Tensor, Tensor | None]:
        """What `Distance.gradient` gives over [the newest span-K rows of the window; rows], the same in every rank.

        Args:
            distance: a `KernelDistance` with the prior "normal", e.g. `mow.MMD`.
            rows: [K, D], the new rows of all ranks, 1 <= K <= n.
            measure: ask for the value too. The logarithm needs it anyway.

        Returns:
            The gradient [K, D] of T(F), and F or None.

        Raises:
            TypeError, ValueError: not such rows, too many of them, another distance or prior.
        """
        if not isinstance(distance, KernelDistance) or not distance.by_its_row:
            name = type(distance).__name__
            raise TypeError(f"distance is {name}; over a sharded window it must be one by its row of mow_kernels")
        if distance.prior != "normal":
            raise ValueError(f"the prior is {distance.prior!r}; over a sharded window it must be 'normal'")
        self._check(rows)
        if len(rows) > self.n:
            raise ValueError(f"rows has {len(rows)} rows and the window n = {self.n}; it must have at most n")
        wide = torch.promote_types(rows.dtype, torch.float32)  # half types would lose what is scaled later
        rows, history = rows.detach().to(self.latents.dtype), min(len(self), max(0, self.span - len(rows)))
        distance.prepare(rows)
        terms = mk.to_normal(distance.function, rows, len(rows) + history, **distance.options(rows))
        value: Tensor | None
        if isinstance(terms, mk.Sliced):
            g_rows, value = self._sliced(rows, history, terms)
        else:
            g_rows, value = self._pairwise(rows, history, terms, measure or distance.log)
        if distance.log and value is not None:
            g_rows = g_rows * distance.slope(value)
        return g_rows.to(wide), value.to(rows.dtype) if measure and value is not None else None

    def extra_repr(self) -> str:
        return f"n={self.n}, dim={self.dim}, present={len(self)}, rank {self.ranks.rank} of {self.ranks.size}"

    def _pairwise(self, rows: Tensor, history: int, terms: mk.Pairwise, measure: bool) -> tuple[Tensor, Tensor | None]:
        """Gradient and value from this rank's rows against all new ones, summed over the ranks: one collective."""
        if measure and (self._pairs is None or self._pairs.kernel != terms.kernel):
            self._set_up(terms)
        leaf = rows.clone().requires_grad_()
        sums = rows.new_zeros(rows.numel() + 3, dtype=torch.float64)
        g_between, between, newer, alone = sums[:-3].view_as(rows), sums[-3], sums[-2], sums[-1]
        for part in self._parts(history):
            for chunk in self._chunks(part, len(rows)):
                with torch.enable_grad():
                    total = terms.between(leaf, self.latents[chunk])
                g_between += torch.autograd.grad(total, leaf)[0]
                between += total.detach()
                if measure:
                    newer += self._newer[chunk].sum()
                    alone += terms.own(self.latents[chunk]).sum()
        self.ranks.sum(sums)
        with torch.enable_grad():
            among, own = terms.within(leaf), terms.own(leaf).sum()
            (g_rows,) = torch.autograd.grad(terms.pair * among + terms.single * own, leaf)
        g_rows = g_rows.double() + 2 * terms.pair * g_between
        if not measure:
            return g_rows, None
        pairs = 2 * newer + 2 * between + among.detach()
        return g_rows, terms.pair * pairs + terms.single * (alone + own.detach()) + terms.constant

    def _sliced(self, rows: Tensor, history: int, terms: mk.Sliced) -> tuple[Tensor, Tensor]:
        """Gradient and value with the directions split over the ranks: each gets the projections of all rows on its
        own, and sorts those. Two collectives: an all-to-all of history * L numbers in all, and the sum."""
        columns = terms.directions.split(self.ranks.counts(terms.directions.shape[1]), dim=1)
        own = columns[self.ranks.rank]
        kept = torch.cat([self.latents[part] for part in self._parts(history)])
        sent = [(kept @ theta).reshape(-1) for theta in columns]
        if self.ranks.size > 1:
            received = [self._count(history, rank) * own.shape[1] for rank in range(self.ranks.size)]
            flat = kept.new_empty(sum(received))
            sizes = [block.numel() for block in sent]
            dist.all_to_all_single(flat, torch.cat(sent), received, sizes, group=self.ranks.group)
        else:
            (flat,) = sent
        projected = flat.view(history, own.shape[1])
        sums = rows.new_zeros(rows.numel() + 1, dtype=torch.float64)
        if own.shape[1]:
            with torch.enable_grad():
                current = (rows @ own).requires_grad_()
                total = terms.over(current, projected) * own.shape[1]
                (g_current,) = torch.autograd.grad(total, current)
            sums[:-1], sums[-1] = (g_current @ own.T).reshape(-1), total.detach()
        self.ranks.sum(sums)
        sums /= terms.directions.shape[1]
        return sums[:-1].view_as(rows), sums[-1]

    def _set_up(self, pairs: mk.Pairwise) -> None:
        """The sums over newer rows for another radial function: every rank sees every shard once. O(n^2 D / W)."""
        self._pairs = pairs
        self._newer.zero_()
        if len(self) == 0:
            return
        ages = self._ages(self.ranks.rank)
        for rank, shard in self._shards():
            theirs = self._ages(rank)
            for start in range(0, len(shard), step := max(1, _CHUNK // max(1, self.latents.numel()))):
                stop = start + step
                newer = theirs[start:stop] < ages[:, None]  # ages of absent rows: largest, so they are newer than none
                values = pairs.matrix(self.latents, shard[start:stop]).where(newer, 0)
                self._newer += values.sum(1, dtype=torch.float64)

    def _newer_among(self, rows: Tensor) -> Tensor:
        """The sum of the radial function from each new row to those after it. [K, D] -> float64 [K]."""
        if self._pairs is None:
            return rows.new_zeros(len(rows), dtype=torch.float64)
        return self._pairs.matrix(rows, rows).triu(1).sum(1, dtype=torch.float64)

    def _shards(self) -> Iterator[tuple[int, Tensor]]:
        """The slots of each rank in turn, in every rank: one broadcast each."""
        for rank in range(self.ranks.size):
            own = rank == self.ranks.rank
            shard = self.latents if own else self.latents.new_empty(self._local(self.n, rank), self.dim)
            if self.ranks.size > 1:
                dist.broadcast(shard, group=self.ranks.group, group_src=rank)
            yield rank, shard
        self.host.agree(self._buffers)  # to send one's own may count as a write

    def _ages(self, rank: int) -> Tensor:
        """The number of rows that are newer than that of each slot of a rank; n for absent ones."""
        slots = torch.arange(rank, self.n, self.ranks.size, device=self.latents.device)
        head, length = self._look()
        ages = (head - 1 - slots) % self.n
        return ages.where(ages < length, self.n)

    def _local(self, slots: int, rank: int | None = None) -> int:
        """How many of the first so many slots lie with a rank, None for this one."""
        return max(0, -(-(slots - (self.ranks.rank if rank is None else rank)) // self.ranks.size))

    def _parts(self, rows: int, rank: int | None = None) -> list[slice]:
        """Where the newest so many rows of the window lie among a rank's slots: one piece or two, the older first."""
        first = (self._look()[0] - rows) % self.n
        if first + rows <= self.n:
            return [slice(self._local(first, rank), self._local(first + rows, rank))]
        return [
            slice(self._local(first, rank), self._local(self.n, rank)),
            slice(0, self._local(first + rows - self.n, rank)),
        ]

    def _count(self, rows: int, rank: int) -> int:
        return sum(part.stop - part.start for part in self._parts(rows, rank))

    def _chunks(self, part: slice, rows: int) -> Iterator[slice]:
        """A part in pieces that may be compared with so many rows at once."""
        step = max(1, _CHUNK // (rows * self.dim))
        for start in range(part.start, part.stop, step):
            yield slice(start, min(start + step, part.stop))

    def _look(self) -> tuple[int, int]:
        """head and count on the host. Forgets the sums over newer rows if others have written the latents."""
        host = self.host
        if host.state != window_state(self.latents, self.head):
            self._pairs = None
            host.read_head(self.latents, self.head, self.n)
        if host.count is not self.count or host.count_version != self.count._version:
            host.read_count(self.count, self.n)
        return host.position, host.present

    def _stand(self, head: int, count: int) -> None:
        """Ends a change of the latents by this window itself."""
        self.head.fill_(head)
        self.count.fill_(count)
        self.host.position, self.host.present = head, count
        self.host.agree(self._buffers)

    def __getstate__(self) -> dict[str, Any]:
        """Copies read their buffers."""
        return {**self.__dict__, "_pairs": None, "host": Host(0, 0)}

    def _check(self, rows: Tensor) -> None:
        if not isinstance(rows, Tensor) or not rows.is_floating_point():
            raise TypeError(f"rows is {getattr(rows, 'dtype', type(rows).__name__)}; it must be floating-point")
        if rows.dim() != 2 or rows.shape[1] != self.dim or len(rows) == 0:
            raise ValueError(f"rows has shape {list(rows.shape)}; it must be [K, {self.dim}] with K >= 1")
        if rows.device != self.latents.device:
            raise ValueError(f"rows is on {rows.device} and the window on {self.latents.device}; they must be on one")

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        latents = torch.zeros(self.n, self.dim, dtype=self.latents.dtype)
        for rank, shard in self._shards():
            latents[rank :: self.ranks.size] = shard.detach().cpu()
        destination[prefix + "latents"] = latents
        destination[prefix + "head"], destination[prefix + "count"] = map(torch.tensor, self._look())
        destination[prefix + "_extra_state"] = extra_state(
            False, self.span, self.n
        )  # a MovingWindow's; no running sums

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        missing, _, errors = rest[-3:]
        names = [prefix + name for name in ("latents", "head", "count")]
        missing.extend(lacking := [name for name in names if name not in state_dict])
        if lacking:
            return
        latents, head, count = (state_dict[name] for name in names)
        span = of_extra_state(state_dict.get(prefix + "_extra_state", torch.tensor(False)))[1]
        if list(latents.shape) != [self.n, self.dim]:
            errors.append(f"latents has shape {list(latents.shape)}; this window's is {[self.n, self.dim]}")
            return
        for name, value, most in (("head", int(head), self.n - 1), ("count", int(count), self.n)):
            if not 0 <= value <= most:
                errors.append(out_of_range(name, value, most))
                return
        self.measure_over(span)
        self.latents.copy_(latents[self.ranks.rank :: self.ranks.size])
        self._pairs = None
        self._stand(int(head), int(count))
