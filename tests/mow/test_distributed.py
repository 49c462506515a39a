"""Several processes against one: the same weights, window and figures, whichever way the rows are spread."""

from __future__ import annotations

import itertools
import pickle
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from test_weighting import TOY
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import mow
from mow import MovingWindow, ShuffledStream, Trainer
from mow.distributed import DistributedTrainer, Ranks, ShardedWindow, gather, gathering
from mow.distributed.ranks import connect, disconnect
from mow.training.precision import Frugal
from mow.training.weighting import WEIGHTINGS
from mow.window.distances import Distance

pytestmark = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="this PyTorch has no torch.distributed with gloo"
)

WIDTH, DIM, N, PICTURES, SEED = 5, 2, 8, 17, 15
MANY, SEED_OF_MANY = 61, 1
"""So many pictures that batches of 4 to 6 need not meet one twice in a row: see `test_no_picture_ties_with_itself`."""

DISTANCES: dict[str, Callable[[], Distance]] = {
    "cramer-wold": lambda: mow.CramerWold(log=True),
    "mmd": lambda: mow.MMD(),
    "sliced": lambda: mow.SlicedWasserstein(directions=7),
    "kept": lambda: mow.SlicedWasserstein(directions=7, keep=3),
    "sampled": lambda: mow.MMD("uniform"),
    "asymptotic": lambda: mow.CramerWold(phi="asymptotic"),
    "gaussian": lambda: mow.MMD(kernel="gaussian", estimator="biased", log=True),
}


class Case(NamedTuple):
    """A training, to be done by one process and by several."""

    distance: str = "cramer-wold"
    k: int = 2
    sharded: bool = False
    steps: int = 8
    warm_up: bool = True
    measured: int = 1
    dtype: torch.dtype = torch.float64
    pictures: int = PICTURES
    options: dict[str, Any] = {}
    scaled: bool = False

    def __str__(self) -> str:
        changed = [f"{name}={value}" for name, value in self._asdict().items() if value != self._field_defaults[name]]
        return " ".join(changed) or "default"

    def stream(self) -> ShuffledStream:
        seed = SEED if self.pictures == PICTURES else SEED_OF_MANY
        return ShuffledStream(pictures(self.dtype, self.pictures), seed)


LOOKING = {"every": 2, "least": 4, "staleness": 1e3}
"""For `mow.AdaptiveSpan`, in a state of its own for each training."""

CASES = [
    *(Case(name, sharded=sharded, steps=50) for name in ("cramer-wold", "mmd", "sliced") for sharded in (False, True)),
    *(Case(options={"weighting": weighting}) for weighting in ("paper", "reference")),
    *(Case("mmd", options={"root": True, "weighting": weighting}) for weighting in ("compensated", "reference")),
    *(Case(k=5, sharded=sharded, options={"reencode": False}) for sharded in (False, True)),
    *(Case("mmd", k=N, sharded=sharded) for sharded in (False, True)),
    *(Case(warm_up=False, steps=10, sharded=sharded) for sharded in (False, True)),
    *(Case("sliced", k=3, warm_up=False, sharded=sharded) for sharded in (False, True)),
    *(Case(name, k=3, sharded=True, measured=3, steps=12) for name in ("mmd", "asymptotic", "gaussian")),
    Case("mmd", warm_up=False, options={"reencode": False}),
    *(Case("kept", k=3, sharded=sharded) for sharded in (False, True)),
    Case("sampled", k=3),
    Case("sliced", dtype=torch.float32, options={"weight": 3.0}),
    *(Case(options={"weighting": "toy"}, sharded=sharded) for sharded in (False, True)),
    *(Case(scaled=True, sharded=sharded) for sharded in (False, True)),
    *(Case("mmd", k=3, sharded=sharded, steps=11, options={"refresh": 3}) for sharded in (False, True)),
    *(Case(k=3, warm_up=False, options={"refresh": 1, "reencode": reencode}) for reencode in (False, True)),
    *(Case("mmd", k=3, scaled=True, sharded=sharded, options={"refresh": 3}) for sharded in (False, True)),
    Case(k=3, scaled=True, options={"refresh": 2, "weighting": "paper"}),
    *(Case(k=2, sharded=sharded, options={"adaptive": LOOKING}, steps=25, pictures=MANY) for sharded in (False, True)),
    *(Case(k=2, sharded=sharded, options={"correction": {"every": 3}}, pictures=MANY) for sharded in (False, True)),
    Case(k=3, scaled=True, sharded=True, options={"root": True, "weighting": "reference"}),
]


def model(dtype: torch.dtype = torch.float64) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(WIDTH, 4), nn.Tanh(), nn.Linear(4, DIM)).to(dtype)
    decoder = nn.Sequential(nn.Linear(DIM, 4), nn.Tanh(), nn.Linear(4, WIDTH)).to(dtype)
    return encoder, decoder


def pictures(dtype: torch.dtype = torch.float64, count: int = PICTURES) -> Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.01)


def trained(case: Case, kind: type[Trainer] = Trainer) -> dict[str, Any]:
    """State and figures of a case after its steps."""
    sharded = case.sharded and kind is not Trainer
    window = (ShardedWindow if sharded else MovingWindow)(N, DIM, dtype=case.dtype)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3) if case.scaled else None
    options = {"optimizer": adam, "scaler": scaler, **case.options}
    if "adaptive" in options:
        options["adaptive"] = mow.AdaptiveSpan(**options["adaptive"])
    if "correction" in options:
        options["correction"] = mow.DriftCorrection(**options["correction"])
    with mock.patch.dict(WEIGHTINGS, {"toy": TOY}):
        trainer = kind(*model(case.dtype), DISTANCES[case.distance](), window, k=case.k, **options)
        torch.manual_seed(5)
        measured = {"measured": lambda step: step % case.measured == 0}
        results = [r for r in trainer.run(case.stream(), case.steps, warm_up=case.warm_up, **measured) if "loss" in r]
    return {"state": trainer.state_dict(), "results": results}


# What the ranks do; each function runs in every rank


def accumulate_in_a_loop(ranks: Ranks) -> list[Tensor]:
    """A loop of one's own: DDP around both networks, and no_sync for two micro-steps an optimiser step."""
    encoder, decoder = model()
    parameters = [*encoder.parameters(), *decoder.parameters()]
    several = ranks.size > 1
    networks = [DistributedDataParallel(net) for net in (encoder, decoder)] if several else [encoder, decoder]
    window, distance, optimizer = MovingWindow(N, DIM, dtype=torch.float64), mow.MMD(), adam(parameters)
    window.fill(torch.ones(N, DIM, dtype=torch.float64))
    stream = ShuffledStream(pictures(), SEED)
    for step in range(8):
        last = step % 2 == 1
        with nullcontext() if last or not several else networks[0].no_sync():
            with nullcontext() if last or not several else networks[1].no_sync():
                x = stream.take(4, ranks.share)
                z = networks[0](x)
                under_way = gather(z, capacity=-(-4 // ranks.size))
                errors = (networks[1](z) - x).square().sum()
                (rows,) = under_way.wait()
                share = errors / len(rows) + N / len(rows) * distance(rows, window)
                (ranks.size * share / 2).backward()
        window.push(rows)
        if last:
            optimizer.step()
            optimizer.zero_grad()
    return [parameter.detach().clone() for parameter in parameters]


def count_collectives(ranks: Ranks) -> list[list[tuple[str, int]]]:
    """What each step sends besides the gradients, in order with the networks' work."""
    sent: list[tuple[str, int]] = []

    def recording(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            tensor = args[1] if name == "all_gather" else args[0]
            sent.append((name, tensor.numel()))
            return function(*args, **kwargs)

        return call

    found = []
    for sharded in (False, True):
        trainer = DistributedTrainer(
            *model(),
            mow.MMD(),
            (ShardedWindow if sharded else MovingWindow)(N, DIM, dtype=torch.float64),
            k=4,
            optimizer=adam,
        )
        trainer.decoder.register_forward_hook(lambda *_: sent.append(("decoder", 0)))
        steps = trainer.run(ShuffledStream(pictures(), SEED), 4, measured=lambda step: False)
        next(steps)
        next(steps)
        sent.clear()
        with patched(gathering, "_all_gather", recording("all_gather", gathering._all_gather)):
            with patched(dist, "all_reduce", recording("all_reduce", dist.all_reduce)):
                next(steps)
        found.append(list(sent))
        list(steps)
    return found


@contextmanager
def patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def meet_a_nan(ranks: Ranks) -> dict[str, Any]:
    """The last picture of the third batch is broken, which only the last rank has."""
    found: dict[str, Any] = {}
    for choice in ("skip", "stop"):
        x = pictures()
        stream = ShuffledStream(x, SEED)
        x[stream._order[N - 2 + 3 * 2 - 1]] = torch.nan  # after those of the warm-up
        window = MovingWindow(N, DIM, dtype=torch.float64)
        kind = DistributedTrainer if ranks.size > 1 else Trainer
        trainer = kind(*model(), mow.CramerWold(), window, k=2, optimizer=adam, on_nonfinite=choice)
        results = []
        try:
            for result in trainer.run(stream, 6):
                results.append(result)
        except FloatingPointError as error:
            found["error"] = str(error)
        found[choice] = trainer.state_dict()
        found[f"{choice} losses"] = [float(result["loss"]) for result in results]
    return found


def overflow(ranks: Ranks) -> dict[str, Any]:
    """In fp16: the third batch ends in a large picture, which only the last rank has."""
    found: dict[str, Any] = {}
    for sharded in (False, True):
        x = pictures(torch.float32)
        stream = ShuffledStream(x, SEED)
        x[stream._order[N - 2 + 3 * 2 - 1]] *= 1000  # after those of the warm-up
        window = (ShardedWindow if sharded and ranks.size > 1 else MovingWindow)(N, DIM)
        networks = (Frugal(network, precision="fp16") for network in model(torch.float32))
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
        kind = DistributedTrainer if ranks.size > 1 else Trainer
        trainer = kind(*networks, mow.CramerWold(), window, k=2, optimizer=adam, scaler=scaler)
        weights, scales = [], []
        for result in trainer.run(stream, 5):
            assert torch.isfinite(result["loss"])
            weights.append([parameter.detach().clone() for parameter in trainer.encoder.parameters()])
            scales.append(scaler.get_scale())
        found[f"sharded={sharded}"] = weights, scales, dict(trainer.state_dict()["window"])
    return found


def part_company(ranks: Ranks) -> str:
    """Every rank draws other directions."""
    window = MovingWindow(N, DIM, dtype=torch.float64)
    trainer = DistributedTrainer(*model(), mow.SlicedWasserstein(), window, k=2, optimizer=adam)
    torch.manual_seed(ranks.rank)
    with pytest.raises(RuntimeError) as caught:
        trainer.fit(pictures(), 3), list(trainer.run(pictures(), 4))
    return str(caught.value)


def gather_unevenly(ranks: Ranks) -> dict[str, Any]:
    """Two parts, of which rank r has r and 2 rows, in each dtype."""
    found: dict[str, Any] = {}
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        few = torch.full((ranks.rank, 3), 10.0 + ranks.rank, dtype=dtype, requires_grad=True)
        two = torch.full((2, 3), float(ranks.rank), dtype=dtype)
        under_way = gather(few, two, capacity=max(2, ranks.size))
        rows = under_way.wait()
        weights = torch.arange(1.0, len(rows[0]) + 1, dtype=dtype)[:, None]
        (rows[0] * weights).sum().backward()
        found[str(dtype)] = [*(part.detach() for part in rows), few.grad, under_way.counts]
    with pytest.raises(ValueError, match="capacity is 1; it must be at least the 2"):
        gather(torch.zeros(2, 3), capacity=1)
    with pytest.raises(ValueError, match=r"counts\[0\]"):
        gather(torch.zeros(2, 3), counts=[[1] * ranks.size])
    return found


def exchange_states(ranks: Ranks) -> dict[str, Any]:
    """A sharded window's state in an ordinary one and back, before and after it is full."""
    rows = torch.arange(2.0 * 3 * N).view(-1, 2)
    found: dict[str, Any] = {}
    for pushed in (3, N, N + 3, 2 * N + 5):
        sharded, whole = ShardedWindow(N, 2), MovingWindow(N, 2)
        for part in rows[:pushed].split(3):
            sharded.push(part)
            whole.push(part)
        other, again = MovingWindow(N, 2), ShardedWindow(N, 2)
        other.load_state_dict(sharded.state_dict())
        again.load_state_dict(whole.state_dict())
        z = torch.randn(2, 2, generator=torch.Generator().manual_seed(0))
        found[str(pushed)] = [
            torch.equal(other.history(1), whole.history(1)) and len(other) == len(whole),
            *again.gradient(mow.MMD(), z),
            *mow.MMD().gradient(z, whole),
        ]
    return found


def ask_rank_0(ranks: Ranks) -> list[Any]:
    """What `Ranks.first` gives, and what it raises."""

    def failing() -> bytes:
        raise FileNotFoundError("no such file: äöü")

    found: list[Any] = [ranks.first(lambda: b"\x00\xff" * 5 if ranks.rank == 0 else b"other"), ranks.first(lambda: b"")]
    try:
        ranks.first(failing)
    except OSError as error:
        found.append((type(error).__name__, str(error)))
    return found


ACTIONS = (
    accumulate_in_a_loop,
    count_collectives,
    meet_a_nan,
    overflow,
    part_company,
    gather_unevenly,
    exchange_states,
    ask_rank_0,
)
ACTIONS_OF_FOUR = (gather_unevenly, exchange_states, ask_rank_0)


def work(rank: int, world: int, folder: str, cases: Sequence[Case], actions: Sequence[Callable[[Ranks], Any]]) -> None:
    """All of it in one process group, since a process takes seconds to begin."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rendezvous = f"file://{folder}/rendezvous"
    connect("gloo", rendezvous, timedelta(seconds=120), world_size=world, rank=rank)
    found: dict[str, Any] = {}
    for name, job in [
        *((str(case), lambda case=case: trained(case, DistributedTrainer)) for case in cases),
        *((action.__name__, lambda action=action: action(Ranks.of())) for action in actions),
    ]:
        try:
            found[name] = job()
        except BaseException:
            found[name] = traceback.format_exc()
    Path(folder, f"{rank}.pickle").write_bytes(pickle.dumps(found))
    disconnect()


def done_by(world: int, folder: Path, cases: Sequence[Case], actions: Sequence[Any]) -> list[dict[str, Any]]:
    """What each rank found."""
    mp.spawn(work, args=(world, str(folder), cases, actions), nprocs=world)
    return [pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(world)]


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return done_by(2, tmp_path_factory.mktemp("ranks"), CASES, ACTIONS)


@pytest.fixture(scope="module")
def four_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return done_by(4, tmp_path_factory.mktemp("ranks"), FOUR, ACTIONS_OF_FOUR)


def of_all(found: list[dict[str, Any]], name: str) -> list[Any]:
    """What the ranks found under a name, none of which is a traceback."""
    results = [of_rank[name] for of_rank in found]
    for result in results:
        if isinstance(result, str) and result.startswith("Traceback"):
            pytest.fail(result)
    return results


# The same as one process


def assert_as_one_process(case: Case, found: list[dict[str, Any]]) -> None:
    """Scaled gradients, whose scale is a power of two, train what others do."""
    expected, tolerance = trained(case._replace(scaled=False)), 1e-12 if case.dtype == torch.float64 else 1e-6
    if case.scaled:
        expected["state"]["scaler"] = trained(case)["state"]["scaler"]
    for got in of_all(found, str(case)):
        for part in ("encoder", "decoder", "window"):
            torch.testing.assert_close(
                got["state"][part], dict(expected["state"][part]), rtol=0, atol=tolerance, check_device=False
            )
        for name in ("steps_done", "pictures_seen", "steps_skipped", *case.scaled * ["scaler"]):
            assert got["state"][name] == expected["state"][name]
        torch.testing.assert_close(got["results"], expected["results"], rtol=100 * tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_two_ranks_are_one_process(case: Case, two_ranks: Any) -> None:
    """Passes of 17 pictures: with k = 2, 3, 5 and 8 the last batch is short, and with 2 and 8 one rank has nothing."""
    assert_as_one_process(case, two_ranks)


FOUR = [
    *(
        Case(name, k=k, sharded=sharded, steps=50, pictures=MANY)
        for name, k, sharded in itertools.product(("cramer-wold", "mmd", "sliced"), (4, 6), (False, True))
    ),
    Case("sliced", k=5, sharded=True, warm_up=False, pictures=MANY, options={"reencode": False}),
]


@pytest.mark.long
@pytest.mark.parametrize("case", FOUR, ids=str)
def test_four_ranks_are_one_process(case: Case, four_ranks: Any) -> None:
    assert_as_one_process(case, four_ranks)


@pytest.mark.parametrize("case", [case for case in CASES + FOUR if case.distance in ("sliced", "kept")], ids=str)
def test_no_picture_ties_with_itself(case: Case) -> None:
    """A picture that is encoded again after a step and stands in the next one too has the same latent twice, but for
    rounding, which differs with the number of rows that are encoded at a time: ranks may order the two either way."""
    stream = case.stream()
    rows = stream.take(N - case.k) if case.warm_up else stream.pictures[:0]
    for _ in range(case.steps):
        before, rows = rows, stream.take(case.k)
        assert not (before[:, None] == rows).all(2).any()


def test_a_loop_with_ddp_and_no_sync(two_ranks: Any) -> None:
    expected = accumulate_in_a_loop(Ranks())
    for got in of_all(two_ranks, "accumulate_in_a_loop"):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


# What is sent


def test_one_collective_a_step(two_ranks: Any) -> None:
    """Two parts, the last step's latents encoded again and this step's, of 2 rows and one column more than D; sent
    before the decoder works. A sharded window also adds up the gradient of 4 rows and three sums."""
    for replicated, sharded in of_all(two_ranks, "count_collectives"):
        assert replicated == [("all_gather", 2 * 2 * (DIM + 1)), ("decoder", 0)]
        assert sharded == [("all_gather", 2 * 2 * (DIM + 1)), ("decoder", 0), ("all_reduce", 4 * DIM + 3)]


@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.long)])
def test_uneven_rows(world: int, request: pytest.FixtureRequest) -> None:
    found = request.getfixturevalue("two_ranks" if world == 2 else "four_ranks")
    ranks = range(world)
    for rank, got in enumerate(of_all(found, "gather_unevenly")):
        for dtype, (few, two, gradient, counts) in got.items():
            assert str(few.dtype) == str(two.dtype) == dtype and counts == [[*ranks], [2] * world]
            assert few[:, 0].tolist() == [10 + r for r in ranks for _ in range(r)]
            assert two[:, 0].tolist() == [r for r in ranks for _ in range(2)]
            before = sum(range(rank))
            assert gradient[:, 0].tolist() == [before + 1 + i for i in range(rank)]


def test_without_torch_distributed() -> None:
    z = torch.randn(3, 2, requires_grad=True)
    under_way = gather(z)
    assert under_way.wait() == (z,) and under_way.counts == [[3]]
    case = Case("mmd", k=3, sharded=True)
    got, expected = trained(case, DistributedTrainer), trained(case)
    torch.testing.assert_close(got["state"]["window"], dict(expected["state"]["window"]), rtol=0, atol=1e-12)
    torch.testing.assert_close(got["state"]["encoder"], expected["state"]["encoder"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 7, 8, 9])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_shares(rows: int, size: int) -> None:
    """In the order of the ranks, together everything, rank 0 with the most."""
    everyone = [Ranks(rank, size) for rank in range(size)]
    assert [i for ranks in everyone for i in range(rows)[ranks.share(rows)]] == list(range(rows))
    counts = [len(range(rows)[ranks.share(rows)]) for ranks in everyone]
    assert counts == everyone[0].counts(rows)
    assert max(counts) == counts[0] <= min(counts) + 1


def test_what_rank_0_says(two_ranks: Any) -> None:
    first, other = of_all(two_ranks, "ask_rank_0")
    assert first[:2] == other[:2] == [b"\x00\xff" * 5, b""]
    assert first[2] == ("FileNotFoundError", "no such file: äöü")
    assert other[2] == ("RankError", "rank 0: no such file: äöü")


def test_the_page_has_the_newest_result() -> None:
    """What `python -m studies.distributed report` writes, and the counts of the text beside it."""
    from benchmarks import page, record  # not in every process that begins by importing this module
    from studies.distributed.__main__ import RESULTS
    from studies.distributed.report import PAGE, tables

    content = record.read(record.newest(RESULTS))
    assert tables(content) in (page.DOCS / PAGE).read_text()
    for world, of_world in content["measured"].items():
        latents = [["all_gather", 2 * (content["sizes"]["dim"] + 1) * 4]] if world != "1" else []
        for kind, found in of_world.items():
            assert found["sent"][: len(latents)] == latents, (world, kind)
            assert len(found["sent"]) == (world != "1") * {"MMD": 3, "MMD, sharded": 4}.get(kind, 5)


# Sharded windows


def test_the_state_of_a_sharded_window(two_ranks: Any) -> None:
    for got in of_all(two_ranks, "exchange_states"):
        for same, g_sharded, sharded, g_whole, whole in got.values():
            assert same
            torch.testing.assert_close(g_sharded, g_whole, rtol=1e-5, atol=1e-7)
            torch.testing.assert_close(sharded, whole, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "use, kind, message",
    [
        (lambda window: window.push(torch.zeros(1, 3)), ValueError, r"rows has shape \[1, 3\]"),
        (lambda window: window.push(torch.zeros(0, 2)), ValueError, r"rows has shape \[0, 2\]"),
        (lambda window: window.fill(torch.zeros(1, 2, dtype=torch.int64)), TypeError, "rows is torch.int64"),
        (lambda window: window.gradient(mow.MMD(), torch.zeros(5, 2)), ValueError, "rows has 5 rows .* n = 4"),
        (lambda window: window.gradient(mow.MMD("uniform"), torch.zeros(1, 2)), ValueError, "the prior is Uniform"),
        (lambda window: ShardedWindow(0, 2), ValueError, "n is 0"),
        (
            lambda window: window.load_state_dict(MovingWindow(5, 2).state_dict()),
            RuntimeError,
            r"latents has shape \[5",
        ),
        (lambda window: window.load_state_dict({}), RuntimeError, "Missing key"),
    ],
)
def test_a_bad_argument_of_a_sharded_window(use: Any, kind: type[Exception], message: str) -> None:
    window = ShardedWindow(4, 2)
    window.push(torch.ones(3, 2))
    before = window.state_dict()
    with pytest.raises(kind, match=message):
        use(window)
    torch.testing.assert_close(window.state_dict(), before)


def test_more_ranks_than_new_elements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ranks, "of", classmethod(lambda cls, group=None: Ranks(0, 3)))
    with pytest.raises(ValueError, match="k is 2 and there are 3 ranks"):
        DistributedTrainer(*model(), mow.MMD(), MovingWindow(N, DIM, dtype=torch.float64), k=2)


def test_no_graph_of_a_step_with_collectives() -> None:
    window = MovingWindow(N, DIM, dtype=torch.float64)
    with pytest.raises(ValueError, match="cuda_graph is True; a step with collectives"):
        DistributedTrainer(*model(), mow.MMD(), window, k=2, cuda_graph=True)


# Faults that end no process (those that do: test_faults.py)


def test_a_nan_in_one_rank(two_ranks: Any) -> None:
    """Every rank skips the same step, or stops before it."""
    expected = meet_a_nan(Ranks())
    assert expected["skip"]["steps_skipped"] == 1 and len(expected["skip losses"]) == 6
    for got in of_all(two_ranks, "meet_a_nan"):
        assert "loss of step 3 is not finite" in got["error"] and got["stop"]["steps_done"] == 2
        assert got["skip"]["steps_skipped"] == 1 and got["skip"]["steps_done"] == 6
        for choice in ("skip", "stop"):
            for part in ("encoder", "decoder", "window"):
                torch.testing.assert_close(got[choice][part], dict(expected[choice][part]), rtol=0, atol=1e-12)


def test_an_overflow_in_one_rank(two_ranks: Any) -> None:
    """Every rank leaves the step out and halves the scale, and the latents enter every window all the same."""
    expected = overflow(Ranks())
    for got in of_all(two_ranks, "overflow"):
        for sharded, (weights, scales, window) in got.items():
            assert scales == expected[sharded][1] == [2.0**8, 2.0**8, 2.0**7, 2.0**7, 2.0**7]
            same = [all(map(torch.equal, *pair)) for pair in itertools.pairwise(weights)]
            assert same == [False, True, False, False]
            torch.testing.assert_close(weights, expected[sharded][0], rtol=0, atol=2e-3)
            torch.testing.assert_close(window, expected[sharded][2], rtol=1e-2, atol=2e-2, check_device=False)
    first, second = of_all(two_ranks, "overflow")
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_ranks_that_part_company_are_found_out(two_ranks: Any) -> None:
    for message in of_all(two_ranks, "part_company"):
        assert "have parted" in message
