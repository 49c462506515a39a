"""A training run in a folder: what `mow train` does, also from Python.

    run = Run.start(Options(model="cwae", data="fashion-mnist", k=1, steps=20_000), Path("runs/cwae"))
    run.train()

The folder holds metrics.jsonl, checkpoint.pt, samples.png, reconstructions.png, interpolations.png and report.html.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import multiprocessing
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from mow.app import data, evaluation, features, interrupt, pictures
from mow.app.architectures import ARCHITECTURES
from mow.app.autoencoders import MODELS
from mow.app.data import LazyPictures, PictureData
from mow.app.optimizers import OPTIMIZERS, SCHEDULES
from mow.app.options import MAY_CHANGE, Options
from mow.app.report import write_report
from mow.distributed import DistributedTrainer, Ranks, ShardedWindow
from mow.files import json_text, number_text, read_json_lines, write_whole
from mow.training import checkpoint, passes
from mow.training.precision import Frugal
from mow.training.stream import ShuffledStream
from mow.training.trainer import Trainer
from mow.window import priors
from mow.window.adaptive import AdaptiveSpan
from mow.window.correction import DriftCorrection
from mow.window.distances import Distance
from mow.window.priors import PriorWindow
from mow.window.window import MovingWindow

Part = Literal["test", "train"]

SINGLE_THREAD_VALUES = 2**15
"""Up to so many picture values a step, one thread: a second would wait more than it works."""

SHOWN_VALUES = 2**24
"""Picture values that one of the images at the end of a run may hold."""

CHECKPOINT = ("options", "data", "trainer", "stream", "random", "seconds")
"""What the checkpoint of a run holds."""


class Run:
    """A run in a folder, ready to train: made by `start` or `resume`.

    Where torch.distributed has been initialised, every rank makes the same calls, and rank 0 alone reads and writes the
    folder. The run is the same whatever the number of ranks, which may change from one resumption to the next.
    """

    def __init__(
        self,
        options: Options,
        out: Path,
        shape: Sequence[int],
        load: Callable[[], PictureData],
        position: Mapping[str, int] = MappingProxyType({"epoch": 0, "offset": 0}),
    ) -> None:
        self.options, self.out, self.shape = options, out, tuple(shape)
        """shape: of a picture [C, H, W]."""
        self._load, self._position = load, position
        assert options.dim is not None and options.architecture is not None and options.weight is not None  # resolved
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        torch.set_flush_denormal(True)  # Adam's second moments of dead units otherwise slow a step several times
        torch.backends.cudnn.deterministic = True  # else a resumed run differs in its last bits
        torch.manual_seed(options.seed)
        self.ranks = Ranks.of()
        window = (ShardedWindow if options.shard else MovingWindow)(options.n, options.dim, device=options.device)
        distance = _distance(options, options.dim)
        architecture = ARCHITECTURES[options.architecture]
        networks = architecture.build(self.shape, options.dim)
        self.encoder, self.decoder = (_frugal(options, network).to(options.device) for network in networks)
        kind = DistributedTrainer if options.shard or self.ranks.size > 1 else Trainer
        self.trainer: Trainer = kind(
            self.encoder,
            self.decoder,
            distance,
            window,  # type: ignore[arg-type]  # the one that the trainer takes
            k=options.k,
            optimizer=lambda parameters: OPTIMIZERS[options.optimizer](parameters, options),
            scheduler=SCHEDULES[options.schedule](options),
            weight=options.weight,
            weighting=options.weighting,
            reencode=options.reencode,
            refresh=options.refresh,
            adaptive=AdaptiveSpan() if options.adaptive else None,
            correction=DriftCorrection() if options.correct_drift else None,
            root=options.root,
            cuda_graph=options.cuda_graph,
            compile=options.compile,
            on_nonfinite=options.on_nonfinite,
            scaler=GradScaler(window.latents.device.type) if options.precision == "fp16" else None,
        )
        self.seconds = 0.0
        self.saved_step: int | None = None
        """The step of the checkpoint, None where there is none yet."""

    @cached_property
    def source(self) -> PictureData:
        """The data set, read when it is first asked for: a folder of pictures takes a while, and samples need none.

        Raises:
            ValueError: it is not the one that the run was trained on.
        """
        return self._load()

    @cached_property
    def stream(self) -> ShuffledStream:
        stream = ShuffledStream(self.source.train, self.options.seed, drop_last=self.options.drop_last)
        stream.seek(**self._position)
        return stream

    @classmethod
    def start(cls, options: Options, out: Path) -> Run:
        """A new run in a folder that holds none.

        Raises:
            FileExistsError: the folder already holds a run.
            ValueError: an option out of range, or data that cannot be had, by name.
            RankError: rank 0 raised one of those.
        """

        def check_that_it_is_free() -> bytes:
            # A start that was killed before its first checkpoint may leave the line of step 0.
            lines = read_json_lines(out / "metrics.jsonl")
            if (out / "checkpoint.pt").exists() or any(record.get("step") != 0 for record in lines):
                raise FileExistsError(f"{out} already holds a run: go on with --resume {out}, or name another folder")
            return b""

        Ranks.of().first(check_that_it_is_free)
        options = options.resolved()
        source = _load(options)
        if options.threads is None and options.k * source.train[0].numel() <= SINGLE_THREAD_VALUES:
            options = dataclasses.replace(options, threads=1)
        run = cls(options, out, source.train.shape[1:], lambda: source)
        if run.ranks.rank == 0:
            scores = run.evaluate()
            out.mkdir(parents=True, exist_ok=True)
            (out / "metrics.jsonl").unlink(missing_ok=True)
            run._log({"loss": None, "reconstruction": None, "distance": None, **scores})
        run._save()
        return run

    @classmethod
    def resume(cls, out: Path, **changes: Any) -> Run:
        """`load`, ready to go on: lines logged after the checkpoint are cut.

        Args:
            changes: of options in `mow.app.options.MAY_CHANGE`: `steps` extends (or shortens) the run to so many in
                all; another `on_nonfinite` leaves no run that stopped a dead end.

        Raises as `load` does, and ValueError for a change of another option.
        """
        if others := changes.keys() - set(MAY_CHANGE):
            raise ValueError(f"{', '.join(sorted(others))} changes as a run goes on; only {', '.join(MAY_CHANGE)} may")
        run = cls.load(out, **changes)
        _ = run.source  # that it is the right one shows before anything is written
        if run.ranks.rank == 0:
            run._cut_metrics()
        return run

    @classmethod
    def load(cls, out: Path, **changes: Any) -> Run:
        """The run in a folder as its last checkpoint has it, but for changes of its options; nothing is written.

        Raises:
            FileNotFoundError: the folder holds no checkpoint.
            CheckpointError: the checkpoint is damaged or foreign.
            ValueError: a change is out of range.
            RankError: rank 0 could not read the checkpoint.
        """
        path = out / "checkpoint.pt"

        def content() -> bytes:
            try:
                return checkpoint.read(path)
            except FileNotFoundError:
                raise FileNotFoundError(_no_run_in(out)) from None

        state = checkpoint.loads(Ranks.of().first(content), path, CHECKPOINT)
        options = Options(**{"architecture": "mnist", **state["options"]})  # the only one before there was a choice
        if changes:
            options = dataclasses.replace(options, **changes).resolved()

        def load() -> PictureData:
            source = data.embedded(options.data) if state["data"]["embedded"] else _load(options)
            if _fingerprint(source) != state["data"]:
                raise ValueError(f"data {options.data!r} is not what {out} was trained on: {source.origin}")
            return source

        run = cls(options, out, state["data"]["shape"][1:], load, state["stream"])
        run.trainer.load_state_dict(state["trainer"])
        run.seconds, run.saved_step = state["seconds"], run.trainer.steps_done
        torch.set_rng_state(state["random"])
        if options.device == "cuda":
            torch.cuda.set_rng_state(state["random_cuda"])
        return run

    def train(
        self, on_step: Callable[[int, dict[str, Any] | None], None] = lambda step, record: None, *, pages: bool = True
    ) -> None:
        """Train to options.steps, then write the pictures and the report.

        Ctrl-C ends it after the step that is under way, with a checkpoint of that step; a second one ends it at once.

        Args:
            on_step: called after each step with its number, and with what was logged if it was.
            pages: write the pictures and the report, which takes seconds.
        """
        options, began = self.options, time.perf_counter() - self.seconds

        def evaluated(step: int) -> bool:
            return step % options.evaluate_every == 0 or step == options.steps

        def logged(step: int) -> bool:
            return step % options.log_every == 0 or evaluated(step)

        results = self.trainer.run(self.stream, options.steps, warm_up=options.warm_up, measured=logged)
        with interrupt.deferred(self.ranks.size == 1) as interrupted:  # ranks would part at different steps
            for result in results:
                step, record = self.trainer.steps_done, None
                self.seconds = time.perf_counter() - began
                if logged(step) and self.ranks.rank == 0:
                    record = self._log({**result, **(self.evaluate() if evaluated(step) else {})})
                stops = interrupted()
                if step % options.checkpoint_every == 0 or step == options.steps or stops:
                    self._save()
                on_step(step, record)
                if stops:
                    raise KeyboardInterrupt
        if pages and self.ranks.rank == 0:
            self.write_pictures()
            self.write_report()

    def evaluate(self) -> dict[str, float]:
        """Scores on the test pictures, see `mow.app.evaluation.evaluate`."""
        return evaluation.evaluate(self.encoder, self.decoder, self.source.test)

    def score(self, seed: int = 0) -> dict[str, Any]:
        """All scores on the test pictures, see `mow.app.evaluation.score`.

        Returns:
            those; test_cost, the cost of the classical method: R + lambda T(F), F the model's over the test latents,
            left out where F or R is; and features and features_accuracy, the network of the Frechet distance, where
            there is one.
        """
        network = features.classifier(self.source)
        scores: dict[str, Any] = evaluation.score(
            self.encoder, self.decoder, self.source.test, prior=self.options.prior, features=network, seed=seed
        )
        of = (MODELS[self.options.model].score, "test_reconstruction")
        if missing := [name for name in of if name not in scores]:
            scores["left_out"]["test_cost"] = f"it is made of {' and '.join(missing)}"
        else:
            value, reconstruction = (scores[name] for name in of)
            distance = float(self.trainer.distance.transform(torch.tensor(value, dtype=torch.float64)))
            rooted = reconstruction**0.5 if self.options.root else reconstruction
            scores["test_cost"] = rooted + self.trainer.weight * distance
        if network is not None:
            scores |= {"features": network.name, "features_accuracy": network.accuracy}
        return scores

    def encode(self, part: Part = "test") -> Tensor:
        """The latents of the test or of the training pictures [N, D]."""
        return passes.encode(self.encoder, self.pictures(part))

    def reconstruct(self, pictures: Tensor) -> Tensor:
        """Pictures [N, C, H, W], uint8 or in [0, 1], through the auto-encoder."""
        return passes.reconstruct(self.encoder, self.decoder, pictures)

    def interpolate(self, starts: Tensor, ends: Tensor, stages: int = 10) -> Tensor:
        """Decoded straight lines between the latents of pictures [R, C, H, W] each. -> [R, stages, C, H, W]"""
        return passes.interpolate(self.encoder, self.decoder, starts, ends, stages)

    def pictures(self, part: Part = "test") -> Tensor | LazyPictures:
        """The test or the training pictures of the data set, uint8 [N, C, H, W].

        Raises:
            ValueError: another part.
        """
        if part not in get_args(Part):
            raise ValueError(f"part is {part!r}; it must be one of {', '.join(get_args(Part))}")
        return self.source.test if part == "test" else self.source.train

    def sample(self, count: int, seed: int = 0) -> Tensor:
        """count pictures decoded from the prior [count, C, H, W]."""
        like = self.trainer.window.latents
        latents = priors.sample(self.options.prior, count, like, torch.Generator().manual_seed(seed))
        return passes.decode(self.decoder, latents, batch=passes.at_once(self.shape))

    def write_pictures(self) -> None:
        """samples.png, reconstructions.png and interpolations.png."""
        test = self.source.test
        fit = max(2, SHOWN_VALUES // math.prod(test.shape[1:]))
        columns = min(10, len(test), fit)
        shown = test[: min(4 * columns, fit)]
        rows = min(6, len(test) // 2, max(1, fit // 10))
        walks = self.interpolate(test[:rows], test[-rows:]) if rows else None
        reconstructions = self.reconstruct(shown)
        images = {
            "samples": pictures.grid(self.sample(min(60, fit)), columns=10),
            "reconstructions": pictures.reconstruction_grid(shown, reconstructions, columns),
            "interpolations": None if walks is None else pictures.interpolation_grid(walks),
        }
        for name, image in images.items():
            if image is not None:
                pictures.save_png(image, self.out / f"{name}.png")

    def write_report(self) -> Path:
        """report.html from the files of the run. -> its path."""
        scores = [record for record in read_json_lines(self.out / "metrics.jsonl") if "test_reconstruction" in record]
        baseline = evaluation.mean_picture_error(self.source.train, self.source.test)
        first, last = scores[0], scores[-1]
        summary = [
            ("test reconstruction", number_text(last["test_reconstruction"], ".1f")),
            ("the mean picture has", f"{baseline:.1f}"),
            ("test Cramer-Wold distance", number_text(last["test_cramer_wold"], ".4f")),
            ("at initialisation", number_text(first["test_cramer_wold"], ".4f")),
            ("steps a second", f"{last['step'] / max(self.seconds, 1e-9):,.0f}"),
        ]
        shown = {name: value for name, value in dataclasses.asdict(self.options).items() if value is not None}
        shown |= {"pictures": self.source.origin, "command": self.options.command(self.out)}
        title = f"{self.options.model.upper()} with {self.options.k} new of n = {self.options.n} a step"
        return write_report(self.out, title=title, summary=summary, options=shown)

    def _log(self, result: dict[str, Any]) -> dict[str, Any]:
        head: dict[str, Any] = {"step": self.trainer.steps_done, "pictures": self.trainer.pictures_seen}
        values = {name: value if value is None else _finite(value) for name, value in result.items()}
        if (adaptive := self.trainer.adaptive) is not None:
            head["span"] = self.trainer.window.span
            head["drift"] = {str(age): drift for age, drift in adaptive.drift.items()}
        if (correction := self.trainer.correction) is not None:
            head |= {name: float(value) for name, value in correction.state_dict().items() if value is not None}
        record = {**head, **values, "seconds": round(self.seconds, 3)}
        for name, count in (("skipped", self.trainer.steps_skipped), ("rows_left_out", self.trainer.rows_left_out)):
            if count:
                record[name] = count
        with open(self.out / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json_text(record) + "\n")
        return record

    def _save(self) -> None:
        state = {
            "options": dataclasses.asdict(self.options),
            "data": _fingerprint(self.source),
            "trainer": self.trainer.state_dict(),
            "stream": {"epoch": self.stream.epoch, "offset": self.stream.offset},
            "random": torch.get_rng_state(),
            "seconds": self.seconds,
        }
        if self.options.device == "cuda":
            state["random_cuda"] = torch.cuda.get_rng_state()
        if self.ranks.rank == 0:
            checkpoint.save(self.out / "checkpoint.pt", state)
        self.saved_step = self.trainer.steps_done

    def _cut_metrics(self) -> None:
        path = self.out / "metrics.jsonl"
        kept = [record for record in read_json_lines(path) if record["step"] <= self.trainer.steps_done]
        write_whole(path, "".join(json_text(record) + "\n" for record in kept))


def _finite(value: Any) -> float | None:
    """None, JSON's null, for what JSON has no number."""
    value = float(value)
    return value if math.isfinite(value) else None


def _load(options: Options) -> PictureData:
    data_dir = None if options.data_dir is None else Path(options.data_dir)
    first = Ranks.of().rank == 0
    with warnings.catch_warnings():
        if not first:  # it told of what is left out
            warnings.simplefilter("ignore", data.PictureWarning)
        shows = first and multiprocessing.parent_process() is None  # a grid has bars of its own
        return data.load(options.data, data_dir=data_dir, download=options.download, size=options.size, progress=shows)


def _fingerprint(source: PictureData) -> dict[str, Any]:
    """What tells one data set from another: the values in memory, or the names and sizes of files not read yet."""
    digest = hashlib.blake2b(digest_size=16)
    for part in (source.train, source.test):
        digest.update(part.digest() if isinstance(part, LazyPictures) else part.numpy().tobytes())
    return {"embedded": source.embedded, "shape": list(source.train.shape), "blake2b": digest.hexdigest()}


def _distance(options: Options, dim: int) -> Distance:
    prior: str | PriorWindow = options.prior
    if options.prior_window:
        prior = PriorWindow(options.n, dim, options.prior, device=options.device)
    model = MODELS[options.model]
    own = {argument: getattr(options, name) for argument, name in model.options.items()}
    return model.distance(prior, log=bool(options.log), **own)


def _frugal(options: Options, network: nn.Module) -> nn.Module:
    if not (options.precision != "fp32" or options.checkpointing or options.channels_last):
        return network
    return Frugal(
        network,
        precision=options.precision,  # type: ignore[arg-type]  # one of them: it is resolved
        checkpointing=options.checkpointing,
        channels_last=options.channels_last,
    )


def _no_run_in(folder: Path) -> str:
    """What is wrong with a folder without a checkpoint, and which runs lie in it or beside it."""
    wrong = "holds no run" if folder.is_dir() else "is no folder"
    depths = "*/checkpoint.pt", "*/*/checkpoint.pt"  # runs/first, also from where runs lies
    near = sorted({found.parent for place in (folder, folder.parent) for how in depths for found in place.glob(how)})
    others = f"near it: {', '.join(map(str, near[:5]))}" if near else "there is none near it"
    return f"{folder} {wrong}: a run is the folder that mow train --out wrote, with its checkpoint.pt; {others}"
