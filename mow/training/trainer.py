"""One-element batch training by moving window: the steps of `mow.training.step`, one after another."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from mow.checks import expect, flag, integer, natural, number, output, positive
from mow.naming import named, optimizer_name
from mow.training import checkpoint, passes, schedules
from mow.training.buffers import Buffers
from mow.training.compiled import CompiledStep, check_compile
from mow.training.cuda_graph import GraphedStep
from mow.training.exchange import Exchange
from mow.training.fitting import fit
from mow.training.history import Callback, History
from mow.training.nonfinite import ON_NONFINITE, FiniteRows, admits
from mow.training.saved import load, state_of
from mow.training.states import take_over
from mow.training.step import LATENTS, step
from mow.training.stream import Pictures, ShuffledStream, as_input, as_tensor
from mow.training.weighting import WEIGHTINGS
from mow.window import priors
from mow.window.adaptive import AdaptiveSpan
from mow.window.correction import DriftCorrection
from mow.window.distances import Distance
from mow.window.priors import generators_of
from mow.window.window import MovingWindow

VALUES_AT_ONCE = 2**21
"""Values of pictures that are encoded at a time to fill the window, if they are more than k pictures."""


def default_learning_rate(k: int) -> float:
    """The learning rate of Adam with k new elements a step: 2e-3 at k = 64, falling with the square root of k."""
    return 2e-3 * (k / 64) ** 0.5


class Trainer:
    """Trains an auto-encoder with the cost R + weight * s * T(F).

        >>> trainer = mow.Trainer(encoder, decoder, mow.CramerWold(log=True), window, k=1)
        >>> history = trainer.fit(pictures, steps=10)

    R is the reconstruction error of the k new elements, F the distance over the n latents of the window, T the
    identity or the logarithm (the distance's own choice). The weighting says how the two are scaled against each other:

    | weighting | R over the k new elements | s |
    |---|---|---|
    | "reference" (the paper's public code) | mean | 1: the distance acts k/n times as strongly as at k = n |
    | "paper" (theorem 1) | sum | 1: both terms carry the factor k/n |
    | "compensated" (ours, default) | mean | n/k: stochastic gradient descent with batch k on the cost of k = n |

    n counts the rows present, also while the window fills.

    A step writes the networks' buffers (batch norm's statistics, spectral norm's vectors) once, by the pass that trains
    them: the warm-up, `refresh`, the pass that encodes again and a step that is skipped leave them as they were.

    Args:
        encoder: pictures [k, ...] -> latents [k, D].
        decoder: latents [k, D] -> pictures [k, ...].
        distance: a `mow.window.distances.Distance`.
        window: of n latents of width D, on the device of the modules.
        k: new elements a step, 1 <= k <= n; k = n is the classical method.
        optimizer: from parameters to an optimiser; None for Adam at `default_learning_rate(k)`.
        scheduler: from that optimiser to a `torch.optim.lr_scheduler.LRScheduler`, e.g. `mow.Cosine`, which is told of
            every step, also of one that was skipped; None for a constant learning rate.
        weight: lambda, >= 0. A distance without its logarithm is small beside R: `mow train` takes 10 for those.
        weighting: "compensated", "paper" or "reference": a row of `mow.training.weighting.WEIGHTINGS`.
        reencode: push the latents of the updated encoder, as in the paper (one more pass through the encoder); else
            those of the step, as the public code does.
        refresh: encode the pictures of the whole window again, with the weights of that moment, every so many steps of
            `run`, which reads them from the data set again; None for never. Not with k = n or on_nonfinite "skip".
        adaptive: measure over as many of the newest rows as the drift of the encoder allows, which it measures by
            encoding a few pictures of `run` again now and then (`mow.AdaptiveSpan`); None for all rows. Not with k = n
            or on_nonfinite "skip".
        correction: carry the rows of the window along with the encoder, whose drift is measured by encoding a few
            pictures of `run` again every so many steps (`mow.DriftCorrection`); None for rows that stay. Not with k = n
            or on_nonfinite "skip".
        root: take the square root of the mean of R, as the public code does; not with "paper".
        cuda_graph: run the step as one CUDA graph, `self.graph` (see `mow.training.cuda_graph.GraphedStep`). The
            optimiser must be SGD or have capturable=True, which the default one then has.
        on_nonfinite: what a step does whose loss is NaN or infinite, by R and by the gradient of the distance. "stop"
            raises, "skip" goes on to the next and counts it in `steps_skipped`; either leaves weights, optimiser and
            window as they were. No row that is not finite enters the window, be it in the warm-up, in a refresh or
            encoded again after a step: "stop" raises, "skip" leaves it out and counts it in `rows_left_out`. "ignore"
            does not look: looking waits for a GPU, so a CUDA graph cannot. None for "ignore" with cuda_graph, else
            "stop".
        compile: run the step as one graph of torch.compile, `self.compiled` (see `mow.training.compiled.CompiledStep`):
            quicker for small networks on a CPU, after the seconds that it takes to compile.
        scaler: scales the gradients that pass through encoder and decoder, for those in fp16 (see
            `mow.training.precision`); None for none. A step whose gradients overflow is left out, in all processes
            alike, and its latents enter the window all the same. Not with cuda_graph or compile: the host looks for the
            overflow.
        exchange: with the other processes of a training, see `mow.distributed.DistributedTrainer`; None for one
            process. Not with cuda_graph or compile.

    Raises:
        TypeError, ValueError: a bad argument, by name.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        distance: Distance,
        window: MovingWindow,
        *,
        k: int = 1,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None,
        scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        weight: float = 1.0,
        weighting: str = "compensated",
        reencode: bool = True,
        refresh: int | None = None,
        adaptive: AdaptiveSpan | None = None,
        correction: DriftCorrection | None = None,
        root: bool = False,
        cuda_graph: bool = False,
        on_nonfinite: str | None = None,
        compile: bool = False,
        scaler: GradScaler | None = None,
        exchange: Exchange | None = None,
    ) -> None:
        needed: tuple[tuple[str, object, type], ...] = (
            ("encoder", encoder, nn.Module),
            ("decoder", decoder, nn.Module),
            ("distance", distance, Distance),
            ("window", window, nn.Module),
        )
        further: tuple[tuple[str, object, type], ...] = (
            ("adaptive", adaptive, AdaptiveSpan),
            ("correction", correction, DriftCorrection),
            ("scaler", scaler, GradScaler),
            ("exchange", exchange, Exchange),
        )
        for name, part, kind in (*needed, *(each for each in further if each[1] is not None)):
            expect(isinstance(part, kind), name, part, f"an object of {kind.__module__}.{kind.__name__}")
        for name, function, of in (
            ("optimizer", optimizer, "the parameters"),
            ("scheduler", scheduler, "the optimizer"),
        ):
            expect(function is None or callable(function), name, function, f"None or a function of {of} that makes one")
        reencode, root = flag("reencode", reencode), flag("root", root)
        cuda_graph, compile = flag("cuda_graph", cuda_graph), flag("compile", compile)
        distance.check(window.dim)
        k, weight = integer("k", k), number("weight", weight, at_least=0)
        if not 1 <= k <= window.n:
            raise ValueError(f"k is {k}; it must be from 1 to the window's n = {window.n}")
        if on_nonfinite is None:
            on_nonfinite = "ignore" if cuda_graph else "stop"
        elif cuda_graph and on_nonfinite != "ignore":
            raise ValueError(f"on_nonfinite is {on_nonfinite!r} and cuda_graph True; a graph can only 'ignore' it")
        for name, value, allowed in (
            ("weighting", weighting, tuple(WEIGHTINGS)),
            ("on_nonfinite", on_nonfinite, ON_NONFINITE),
        ):
            if value not in allowed:
                raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, allowed))}")
        if root and not WEIGHTINGS[weighting].root:
            means = " or ".join(repr(name) for name, row in WEIGHTINGS.items() if row.root)
            raise ValueError(f"root is True and weighting {weighting!r}, whose R is no mean; use {means}")
        if cuda_graph and scaler is not None:
            raise ValueError("cuda_graph is True and there is a scaler, which asks the host; use one of the two")
        if cuda_graph and exchange is not None:
            raise ValueError("cuda_graph is True; a step with collectives between ranks is not captured")
        if compile:
            check_compile(cuda_graph, scaler, exchange)
        if refresh is not None:
            refresh = positive("refresh", refresh)
        for name, reads_again in (("refresh", refresh), ("adaptive", adaptive), ("correction", correction)):
            if reads_again is not None and k == window.n:
                raise ValueError(f"{name} is {reads_again} and k = n = {k}, which has no history; it must be None")
            if reads_again is not None and on_nonfinite == "skip":
                raise ValueError(
                    f"{name} is {reads_again} and on_nonfinite 'skip', after which the window's rows are not those of "
                    "the newest pictures; use one of the two"
                )
        self.encoder, self.decoder, self.distance, self.window = encoder, decoder, distance, window
        self.k, self.weight, self.weighting, self.reencode, self.root = k, weight, weighting, reencode, root
        self.refresh, self.adaptive, self.correction = refresh, adaptive, correction
        self.on_nonfinite = on_nonfinite
        if adaptive is not None:
            adaptive.begin(window, k)
        self.scaler = GradScaler(window.latents.device.type, enabled=False) if scaler is None else scaler
        self.exchange = Exchange() if exchange is None else exchange
        parameters = [*encoder.parameters(), *decoder.parameters()]
        if optimizer is None:
            lr: float | Tensor = default_learning_rate(k)
            if cuda_graph and scheduler is not None:
                lr = torch.tensor(lr, device=window.latents.device)
            self.optimizer: Optimizer = torch.optim.Adam(parameters, lr=lr, fused=True, capturable=cuda_graph)
        else:
            self.optimizer = optimizer(parameters)
        self.scheduler = None if scheduler is None else scheduler(self.optimizer)
        if self.scheduler is not None:
            schedules.check(self.scheduler, cuda_graph=cuda_graph)
        self._like = next((each for each in parameters if each.is_floating_point()), window.latents)
        """A parameter, whose dtype the networks compute in, also after `.to()`."""
        self.steps_done = self.pictures_seen = self.steps_skipped = 0
        self.history = History()
        """What `fit` has measured."""
        self._position: dict[str, int] | None = None
        self._stream: ShuffledStream | None = None
        """The one that is read, while `run` is under way."""
        self._finite = self.exchange.accepted = FiniteRows(on_nonfinite)  # it does not know the trainer: no cycle
        self.graph = self._graphed() if cuda_graph else None
        self.compiled = CompiledStep(self.optimizer) if compile else None

    def __repr__(self) -> str:
        return named(
            self,
            k=self.k,
            n=self.window.n,
            distance=self.distance,
            weighting=self.weighting,
            optimizer=optimizer_name(self.optimizer),
            steps_done=self.steps_done,
        )

    @property
    def rows_left_out(self) -> int:
        """How many latents did not enter the window, since they were not finite."""
        return self._finite.left_out

    @property
    def position(self) -> dict[str, int] | None:
        """Where the pictures were left that `run` has read: seed, epoch, offset, and how many they are; else None."""
        return self._position if self._stream is None else self._stream.position

    @position.setter
    def position(self, position: dict[str, int] | None) -> None:
        self._position = position

    def step(self, x: Tensor, *, measure: bool = True, total: int | None = None) -> dict[str, Tensor]:
        """One optimiser step on new elements x [k, ...], and their latents into the window: `mow.training.step.step`.

        Args:
            x: the new elements of this process, also from another device than the window's, or a NumPy array. Pictures
                in uint8 are scaled to [0, 1]; they and floating-point ones are cast to the dtype of the networks.
            measure: ask for the value of the distance too. The step is the same without, and takes less where the
                gradient alone is cheaper: O(k (n + m) D) for a prior sampled afresh, where the value takes O(nmD).
            total: the new elements of all processes, where there are several and each has its share of them; None
                reads from what was gathered how many each has, for which a GPU has to be waited for.

        Returns:
            loss, reconstruction (per picture: the mean over k of the sum of squares) and distance (bare F, without the
            logarithm), 0-d and detached, over all processes; without `measure` the reconstruction of x alone.

        Raises:
            TypeError: x is no tensor, or the encoder or the decoder gives none. Nothing has changed.
            ValueError: the encoder's latents are not [k, D], or the decoder's pictures not of x's shape; and what the
                distance raises. Nothing has changed.
            FloatingPointError: on_nonfinite is "stop" and the loss is NaN or infinite: nothing has changed. Or the
                latents that the updated encoder gives are: the weights are the updated ones, the window as before.
        """
        if type(x) is not Tensor:
            x = as_tensor("x", x)
        with self.exchange.guard(self.steps_done + 1):
            results = self._step(x, measure, total) if self.graph is None else self.graph(x, measure)
        self.steps_done += 1
        self.pictures_seen += self.exchange.count(x)
        if self.scheduler is not None:
            self.scheduler.step()
        return results

    def run(
        self,
        pictures: ShuffledStream | Pictures,
        steps: int,
        *,
        warm_up: bool = True,
        drop_last: bool = False,
        measured: Callable[[int], bool] = lambda step: True,
    ) -> Iterator[dict[str, Tensor]]:
        """Train until `steps` steps are done in all, and yield what each step returns.

        Args:
            pictures: the data set (see `ShuffledStream`), read in shuffled passes; a pass may end in a short batch.
                The same in every process: each reads its share. A stream of your own says where it is; other pictures
                are read on from `self.position`, where the last call has left as many.
            steps: the total, those already done included.
            warm_up: begin by filling an empty window with the latents of n-k elements under the initial weights, step
                1 of the paper; else it grows from empty.
            drop_last: begin the next pass in place of a batch of less than k. Of a stream of your own, its own says so.
            measured: whether a step, counted from 1, is asked for the value of the distance (see `step`).

        Raises:
            ValueError: drop_last where no batch of k would be left, with refresh, or beside a stream.
            What `step` and `ShuffledStream` raise.
        """
        steps, drop_last, warm_up = natural("steps", steps), flag("drop_last", drop_last), flag("warm_up", warm_up)
        stream = self._stream_of(pictures, drop_last)
        if drop_last and not stream.drop_last:
            raise ValueError("drop_last is True and pictures a stream, which has a drop_last of its own: set that")
        for name in ("refresh", "adaptive", "correction"):
            reads_again = getattr(self, name)
            if stream.drop_last and reads_again is not None:
                raise ValueError(f"drop_last is True and {name} {reads_again}, which reads whole passes again; use one")
        if stream.drop_last and len(stream.pictures) < self.k:
            raise ValueError(f"drop_last is True, k {self.k} and there are {len(stream.pictures)} pictures: no batch")
        self._stream = stream
        try:
            if warm_up and len(self.window) == 0 and self.k < self.window.n:
                self._warm_up(stream)
            while self.steps_done < steps:
                total = stream.following(self.k)
                x = stream.take(self.k, self.exchange.share)
                result = self.step(x, measure=measured(self.steps_done + 1), total=total)
                if self.refresh is not None and self.steps_done % self.refresh == 0:
                    self._refresh(stream)
                if self.adaptive is not None and self.steps_done % self.adaptive.every == 0:
                    self._look_back(stream, self.adaptive)
                if self.correction is not None and self.steps_done % self.correction.every == 0:
                    self._correct(stream, self.correction)
                yield result
            self._settle()
        finally:
            self.position, self._stream = stream.position, None  # the trainer keeps no pictures

    def fit(
        self,
        pictures: ShuffledStream | Pictures,
        steps: int,
        *,
        warm_up: bool = True,
        drop_last: bool = False,
        log_every: int = 100,
        test: Pictures | None = None,
        test_every: int = 1000,
        callbacks: Callback | Sequence[Callback] = (),
        progress: bool | None = None,
    ) -> History:
        """`run` to its end, with a look at it now and then; what is not looked at is not measured.

            >>> history = trainer.fit(pictures, steps=20, log_every=5, test=pictures[:8], callbacks=[seen.append])
            >>> history["step"], len(history["test_reconstruction"]), len(seen)
            ([5, 10, 15, 20], 1, 4)

        Args:
            pictures, steps, warm_up, drop_last: as for `run`.
            log_every: steps from one record to the next, >= 1; the last step has one, too.
            test: pictures of the same kind to be scored on, which are not trained on; None for none.
            test_every: steps from one scoring to the next, >= 1, and at the last one.
            callbacks: called with each record as it is made; one that raises ends the training.
            progress: show the training: as a bar in a notebook, or on stderr where it is a terminal and rich is
                installed, else as a line now and then. None for the bar where there can be one, and else nothing.

        Returns:
            `self.history`: the records of all calls of `fit`, with step, pictures (seen), loss, reconstruction and
            distance as `step` returns them, and where they were scored test_reconstruction and test_distance, which is
            of as many test latents as the window has, by the same distance without the logarithm.

        Raises:
            ValueError, TypeError: a bad argument, by name; and what `run` raises. The history so far stays.
        """
        return fit(
            self,
            pictures,
            steps,
            warm_up=warm_up,
            drop_last=drop_last,
            log_every=log_every,
            test=test,
            test_every=test_every,
            callbacks=callbacks,
            progress=progress,
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write everything that the next step depends on, but for the data, whole or not at all. -> the path.

            >>> path = trainer.save(folder / "trainer.pt")
            >>> trainer = mow.Trainer.load(path, encoder, decoder, mow.CramerWold())

        Also from a callback of `fit`. Of several processes all call it, and the first writes.

        Raises:
            OSError: the file cannot be written.
        """
        state = state_of(self)
        path = Path(path)
        if self.exchange.first:
            checkpoint.save(path, state)
        return path

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        encoder: nn.Module,
        decoder: nn.Module,
        distance: Distance,
        window: MovingWindow | None = None,
        **options: Any,
    ) -> Self:
        """The trainer that `save` wrote: `fit` with the same pictures goes on with the same bits.

        Code is not in the file: networks, distance and optimiser are made as for the first trainer, and get their
        states. PyTorch's random state is that of the file, too, as is the history.

        Args:
            encoder, decoder, distance: as for `Trainer`, of the same kinds as those that were saved.
            window: None for one like that which was saved, on the encoder's device.
            options: `optimizer`, `scheduler`, `adaptive`, `correction`, `scaler`, `compile` and `cuda_graph` as for the
                first trainer; of the others those that shall change.

        Raises:
            FileNotFoundError: there is no such file.
            CheckpointError: it is damaged, or not of `save`.
            ValueError, RuntimeError: networks, distance, window or optimiser are not like those that were saved; they
                are as they were.
        """
        return load(cls, Path(path), encoder, decoder, distance, window, options)

    def sample(self, count: int, *, seed: int = 0) -> Tensor:
        """Pictures decoded from the prior of the distance, in evaluation mode; the training notices nothing.

            >>> trainer.sample(3).shape
            torch.Size([3, 6])

        Args:
            count: >= 1.
            seed: of the draws.

        Returns:
            [count, ...], on the CPU.
        """
        count, seed = positive("count", count), integer("seed", seed)
        return passes.decode(self.decoder, priors.seeded(self.distance.prior, count, self.window.latents, seed))

    def reconstruct(self, x: Tensor) -> Tensor:
        """Pictures [N, ...] through encoder and decoder, in evaluation mode. -> [N, ...], on the CPU.

            >>> trainer.reconstruct(pictures[:5]).shape
            torch.Size([5, 6])

        Args:
            x: a tensor or NumPy array, as `step` takes it.

        Raises:
            TypeError: it is neither.
        """
        return passes.reconstruct(self.encoder, self.decoder, as_tensor("x", x))

    def interpolate(self, a: Tensor, b: Tensor, steps: int = 10) -> Tensor:
        """Decoded straight lines from the latents of pictures to those of others, both ends included.

            >>> trainer.interpolate(pictures[:2], pictures[2:4], steps=5).shape
            torch.Size([2, 5, 6])

        Args:
            a, b: [R, ...] each.
            steps: pictures of a line, >= 2.

        Returns:
            [R, steps, ...], on the CPU.

        Raises:
            TypeError, ValueError: a bad argument, by name.
        """
        a, b, steps = as_tensor("a", a), as_tensor("b", b), integer("steps", steps, " >= 2")
        if steps < 2:
            raise ValueError(f"steps is {steps}; it must be >= 2, for the two ends")
        if a.shape != b.shape:
            raise ValueError(f"b has shape {list(b.shape)}; it must be a's, {list(a.shape)}")
        return passes.interpolate(self.encoder, self.decoder, a, b, steps)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, but for the data and PyTorch's random state.

        The same in every process; all of them call it.
        """
        self._settle()
        state = {
            "encoder": self.encoder.state_dict(),
            "decoder": self.decoder.state_dict(),
            "distance": self.distance.state_dict(),
            "window": self.window.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "steps_done": self.steps_done,
            "pictures_seen": self.pictures_seen,
            "steps_skipped": self.steps_skipped,
            "rows_left_out": self.rows_left_out,
        }
        for name in ("scheduler", "adaptive", "correction"):
            if (part := getattr(self, name)) is not None:
                state[name] = part.state_dict()
        return {**state, "scaler": self.scaler.state_dict()} if self.scaler.is_enabled() else state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave.

        Raises:
            KeyError, RuntimeError, ValueError: another trainer's state; nothing has changed.
        """
        take_over(state, self._load, self.state_dict)

    def _load(self, state: dict[str, Any]) -> None:
        for name in ("encoder", "decoder", "distance", "window", "optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.steps_done, self.pictures_seen = state["steps_done"], state["pictures_seen"]
        # older checkpoints lack these
        self.steps_skipped, self._finite.left_out = state.get("steps_skipped", 0), state.get("rows_left_out", 0)
        for name in ("scheduler", "adaptive", "correction"):
            if (part := getattr(self, name)) is not None:
                part.load_state_dict(state[name])
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])

    def _step(self, x: Tensor, measure: bool, total: int | None = None) -> dict[str, Tensor]:
        """`step` but for the counts: what a CUDA graph captures."""
        return (step if self.compiled is None else self.compiled)(
            self.encoder,
            self.decoder,
            self.distance,
            self.window,
            self.optimizer,
            self._input(x),
            k=self.k,
            weight=self.weight,
            weighting=WEIGHTINGS[self.weighting],
            root=self.root,
            reencode=self.reencode,
            measure=measure,
            scaler=self.scaler,
            exchange=self.exchange,
            admits=None if self.on_nonfinite == "ignore" else self._admits,
            total=total,
        )

    def _admits(self, health: Tensor) -> bool:
        """Whether a step may be taken, which it may if this 0-d tensor is finite."""
        admitted = admits(
            self.on_nonfinite,
            health,
            lambda: (
                f"the loss of step {self.steps_done + 1} is not finite; weights and window are those of step "
                f"{self.steps_done} (on_nonfinite='skip' would go on without it; a lower learning rate may avoid it)"
            ),
        )
        self.steps_skipped += not admitted
        return admitted

    def _stream_of(self, pictures: ShuffledStream | Pictures, drop_last: bool) -> ShuffledStream:
        if isinstance(pictures, ShuffledStream):
            return pictures
        stream = ShuffledStream(pictures, drop_last=drop_last)
        position = self.position
        if position is not None and position["pictures"] == len(stream.pictures):
            stream = ShuffledStream(pictures, position["seed"], drop_last=drop_last)
            stream.seek(position["epoch"], position["offset"])
        return stream

    def _warm_up(self, stream: ShuffledStream) -> None:
        """Step 1 of the paper."""
        total = stream.following(self.window.n - self.k)
        self._fill(stream.take(self.window.n - self.k, self.exchange.share), total)

    def _refresh(self, stream: ShuffledStream) -> None:
        """The window's rows came from the last pictures of the stream, unless it has had another before."""
        self._settle()
        total = len(self.window)
        if stream.taken >= total:
            self._fill(stream.recent(total, self.exchange.share), total)

    def _look_back(self, stream: ShuffledStream, adaptive: AdaptiveSpan) -> None:
        """How far rows of the window have moved: those of a few ages, whose pictures are encoded again."""
        self._settle()
        ages = [age for age in adaptive.ages(self.window, self.k) if age <= stream.taken]
        if len(ages) > 1:  # of one age there is nothing to choose, nor a batch for a norm
            z = self._encoded(stream.ago(ages, self.exchange.share), len(ages))
            adaptive.update(self.window, ages, z, self.k)

    def _correct(self, stream: ShuffledStream, correction: DriftCorrection) -> None:
        """Carry the window along; its rows came from the last pictures of the stream, unless it has had another."""
        self._settle()
        if stream.taken >= len(self.window) > 1:
            ages = correction.ages(self.window, self.steps_done // correction.every)
            z = self._encoded(stream.ago(ages, self.exchange.share), len(ages))
            correction.correct(self.window, ages, self._finite(z, self.window.latents.dtype))

    def _fill(self, x: Tensor, total: int) -> None:
        """The window anew from so many elements, of which this process has x."""
        self._finite.fill(self._encoded(x, total), self.window)

    def _encoded(self, x: Tensor, total: int) -> Tensor:
        """The latents of so many elements, of which this process has x, without a trace.

        Large pictures are encoded k at a time, since more may not fit.
        """
        at_once = max(self.k, VALUES_AT_ONCE // math.prod(x.shape[1:]))
        with torch.no_grad(), self.exchange.guard(self.steps_done):
            with Buffers(self.encoder):
                parts = [output("encoder", self.encoder(self._input(part)), 2, LATENTS) for part in x.split(at_once)]
            return self.exchange.gather(torch.cat(parts), total)

    def _input(self, x: Tensor) -> Tensor:
        """Elements as the networks take them, on their device."""
        x = x.to(self.window.latents.device)
        dtype = self._like.dtype
        return x if x.dtype is dtype else as_input(x, dtype)

    def _settle(self) -> None:
        with self.exchange.guard(self.steps_done):
            self.exchange.settle(self.window)

    def _graphed(self) -> GraphedStep:
        """The step from a CUDA graph: what it freezes, and when there is a step to be repeated."""
        if (keep := getattr(self.distance, "keep", 1)) > 1:
            raise ValueError(
                f"cuda_graph is True and the distance's keep {keep}, which is counted on the host; it must be 1"
            )
        return GraphedStep(
            self._step,
            self.optimizer,
            device=self.window.latents.device,
            generators=list(generators_of(self.distance)),
            modules=lambda: (self.encoder, self.decoder, self.window, self.distance),
            options=lambda: (
                *(self.k, self.weight, self.weighting, self.reencode, self.root, self.window.span),
                *self.window.kept.following.values(),  # what is kept is in the graph, and lives as long
            ),
            repeats=lambda x: len(x) == self.k and (len(self.window) == self.window.n or self.k == self.window.n),
        )
