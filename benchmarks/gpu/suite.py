"""The run of `make gpu`: tests, ceilings and cases, the important ones first, until the time is up.

Tests, sanitizers and the jobs of each backend run in processes of their own (children.py): an error that stays with a
process, as CUDA's do, a hang or a crash costs that part alone. The record is written after every job.
"""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import mow_kernels as mk
from benchmarks import naive, record
from benchmarks.cases import DISTANCES, SEED, TOLERANCE, Answer, Case, Inputs, errors, inputs, library, library_gradient
from benchmarks.gpu import children, loop
from benchmarks.gpu.children import last_line
from benchmarks.gpu.devices import Call, Gpu, StandIn
from benchmarks.gpu.loop import Loop
from benchmarks.record import short
from mow_kernels.registry import BACKENDS, TABLE

OPTIONS: dict[str, dict[str, Any]] = {"mmd": {}, "cramer_wold": {"phi": "asymptotic"}, "sliced_wasserstein": {}}
"""What the plain code computes."""

BY_WARPGROUPS = "cuda by warpgroups"
FORMS = {
    "cuda on tensor cores": {"MOW_CUDA_PRODUCT": "0"},
    BY_WARPGROUPS: {"MOW_CUDA_PRODUCT": "wgmma"},
    "triton on tensor cores": {"MOW_TRITON_PRODUCT": "0"},
}
"""Candidate -> the variables by which its backend, the first word, takes the products of pairs on tensor cores at every
size. No backend does so by itself until what is measured here says from which size on (`report.products`). Each has a
process of its own."""

PAIRS = ("mmd", "cramer_wold")

CHECKED = 4096
"""Rows up to which a case is compared with the reference in float64."""

TESTS = {
    "pairs-mmd": ("tests/gpu/test_pairs.py", "mmd"),
    "pairs-cramer-wold": ("tests/gpu/test_pairs.py", "cramer_wold"),
    "sliced": ("tests/gpu/test_sliced.py", ""),
    "triton": ("tests/gpu/test_triton.py", ""),
    "graph": ("tests/gpu/test_graph_on_device.py", ""),
    "k_center": ("tests/gpu/test_k_center_on_device.py", ""),
}
"""Name -> file, expression. Side by side, a process for each backend: what they wait for is the compiler."""

SIZES = ((70, 3, 20), (2, 1, 2), (64, 1, 20), (128, 128, 33), (257, 65, 64))
SORTED_SIZES = ((5000, 1, 3),)
"""n, k, D of `probe`: windows that one launch does, by one block and by a cluster; tiles; sorted runs and a merge."""

SANITIZERS = ("memcheck", "racecheck")
"""Tools of compute-sanitizer."""

WIDE = (40, 5, 300)
"""Further n, k, D for products on tensor cores: more coordinates than stay in shared memory."""

REFUSALS = ("not supported", "Internal Sanitizer Error", "Unable to", "Failed to initialize", "permission")
"""What compute-sanitizer says where it may not have the device."""

CEILINGS_SECONDS = 15.0

PATIENCE = 30.0
"""Seconds by which a job may exceed twice what it takes at most, before it counts as one that hangs."""


@dataclass(frozen=True)
class Job:
    """A case with one candidate."""

    case: Case
    candidate: str
    seconds: float
    """What it takes at most, by guess."""

    @property
    def name(self) -> str:
        return f"{self.case.name} {self.candidate}"

    def describe(self) -> dict[str, Any]:
        return {**self.case.describe(), "candidate": self.candidate}


@dataclass(frozen=True)
class Effort:
    """How long the suite may take, and on what."""

    seconds: float = 470.0
    """In all, from the beginning of the build on."""
    test_seconds: float = 200.0
    sample_seconds: float = 0.05
    ns: tuple[int, ...] = (64, 1024, 16384, 65536)
    ks: tuple[int, ...] = (1, 64)
    dims: tuple[int, ...] = (64, 20, 256)
    copy: int = 2**30
    product: int = 8192


def backends(device: torch.device) -> list[str]:
    """Those that can run some distance on the device, in the order of "auto"; the reference is none of them."""
    probe = torch.zeros(2, 4, device=device)
    found = []
    for backend in BACKENDS:
        with mk.use_backend(backend):
            if backend != "reference" and mk.explain(mk.mmd, probe, probe).backend == backend:
                found.append(backend)
    return found


def variables(candidate: str) -> dict[str, str]:
    """What is in the environment of a candidate's process."""
    return FORMS.get(candidate, {})


def _backend(candidate: str) -> str:
    return candidate.split()[0] if candidate in FORMS else candidate


def has_warpgroups() -> bool:
    """Whether the device has their instructions; elsewhere that form is the other one."""
    return torch.cuda.is_available() and torch.cuda.get_device_capability() == (9, 0)


def _on_tensor_cores(own: Sequence[str]) -> list[str]:
    return [name for name in FORMS if _backend(name) in own and (name != BY_WARPGROUPS or has_warpgroups())]


def plan(effort: Effort, own: Sequence[str]) -> list[Job | Loop]:
    """Every job, the most important first: small steps and the largest window, the training loop, then what lies
    between, and what has to be compiled for long last."""
    main = [Case(name, n, k, options=OPTIONS[name]) for n, k in _corners(effort) for name in DISTANCES]
    every = [
        Case(name, n, k, dim, options=OPTIONS[name])
        for dim in effort.dims
        for n in effort.ns
        for k in effort.ks
        for name in DISTANCES
    ]
    rest = [case for case in every if case not in main]
    tensor = _on_tensor_cores(own)
    between = [Case(name, CHECKED, effort.ks[-1], options=OPTIONS[name]) for name in PAIRS] * bool(tensor)
    large = [case for case in (*main[::-1], *rest) if case.n > 64 and case.distance in PAIRS]

    def jobs(cases: Sequence[Case], candidates: Sequence[str], seconds: float) -> list[Job]:
        return [Job(case, candidate, seconds) for case in cases for candidate in candidates]

    eager = [*own, *(f"{backend}, graph" for backend in own), "plain", "plain, graph", "rows", "rows, graph"]
    return [
        *jobs(main, eager, 4),
        *loop.eager(own),
        *(Job(case, f"{who}, {how}", 4) for who in own for case in _kept_cases(effort, who) for how in KEPT),
        *jobs(main, ["compile, reduce-overhead", "compile"], 30),
        *jobs(between, [*own, *tensor], 4),
        *jobs(large, tensor, 4),
        *loop.compiled(),
        *jobs([case for case in rest if case.dim == effort.dims[0]], eager, 4),
        *jobs(main, ["compile, max-autotune", "rows, compile"], 40),
        *jobs([case for case in rest if case.dim != effort.dims[0]], eager, 4),
        *jobs([case for case in rest if case.dim == effort.dims[0]], ["compile"], 30),
    ]


KEPT = ("kept", "kept, graph")
"""A step over a window whose sums or projections are kept: the gradient with the value, and the push."""


def _kept_cases(effort: Effort, backend: str) -> list[Case]:
    """The smallest step over the largest window and one that is checked, to N(0, I), of the distances for which the
    backend keeps something."""
    entries = {name: TABLE[name][backend] for name in DISTANCES}
    there = [name for name, entry in entries.items() if not isinstance(entry, str) and entry.running is not None]
    sizes = dict.fromkeys((effort.ns[-1], effort.ns[1]))
    return [Case(name, n, effort.ks[0], options=OPTIONS[name]) for n in sizes for name in there]


def _corners(effort: Effort) -> list[tuple[int, int]]:
    return [(effort.ns[0], effort.ks[0]), (effort.ns[-1], effort.ks[-1])]


def parts(effort: Effort, own: Sequence[str]) -> dict[str, list[Job | Loop]]:
    """The jobs by the process that does them: one a backend, then plain code, then what torch.compile makes of it."""
    found: dict[str, list[Job | Loop]] = {name: [] for name in (*own, *_on_tensor_cores(own), "plain", "compile")}
    for job in plan(effort, own):
        who = job.candidate.partition(", ")[0]
        found["compile" if "compile" in job.candidate else who if who in found else "plain"].append(job)
    return found


def work(machine: Gpu | StandIn, effort: Effort, jobs: Sequence[Job | Loop], seconds: float) -> Iterator[children.Row]:
    """What the process of a part writes: each job, announced before it begins; what there is no time for is dropped."""
    deadline = time.monotonic() + seconds
    for job in jobs:
        if time.monotonic() + job.seconds > deadline:
            yield {"dropped": job.name}
            continue
        yield {"begins": job.name, "limit": 2 * job.seconds + PATIENCE}
        yield {"job": job.name, **attempt(machine, effort, job)}
        machine.check()


def run(
    machine: Gpu | StandIn,
    effort: Effort,
    own: Sequence[str],
    command: Callable[[str, float], Sequence[str]],
    write: Callable[[dict[str, Any]], object],
    tell: Callable[[str], None] = print,
) -> dict[str, Any]:
    """The record of a run.

    Args:
        machine: what is tested and measured.
        effort: how long it may take.
        own: the backends.
        command: command(part, seconds) does a part in a process of its own; `children.rows` says how it reports.
        write: keeps the record as it stands, after every job.
        tell: says what has been done.
    """
    started = time.monotonic()
    deadline = started + effort.seconds
    about = record.head("make gpu", SEED)
    about["commit"] = os.environ.get("MOW_COMMIT") or about["commit"]
    about["versions"] |= {name: record.version(name) for name in ("triton", "pykeops", "flash-sinkhorn")}
    device = machine.describe()
    about["machine"] = {**about["machine"], "cpu": device["name"]}  # names the file
    content: dict[str, Any] = {**about, "device": device, "backends": list(own), "seconds": 0.0}
    content |= {"tests": {}, "sanitizer": {}, "ceilings": {}, "cases": [], "training": [], "dropped": []}

    def keep(what: str) -> None:
        content["seconds"] = round(time.monotonic() - started, 1)
        write(content)
        tell(what)

    if isinstance(machine, Gpu):
        limit = min(effort.test_seconds, effort.seconds / 2)
        for group, name, result in checks(own, limit):
            content[group][name] = result
            keep(f"{name}: {result}")
    else:
        content["sanitizer"] = dict.fromkeys(SANITIZERS, "unavailable")
    for row in children.rows(command("ceilings", CEILINGS_SECONDS), CEILINGS_SECONDS + PATIENCE):
        content["ceilings"] |= row
        keep(f"ceilings: {row}")
    left = parts(effort, own)
    while left:
        name = next(iter(left))
        seconds = max(0.0, deadline - time.monotonic()) / len(left)
        for job, result in outcomes(left.pop(name), children.rows(command(name, seconds), seconds + PATIENCE / 3)):
            if result is None:
                content["dropped"].append(job.name)
                continue
            whole = isinstance(job, Job) and "kept" not in job.candidate
            if whole and "us" in result and "multiply_adds" in content["ceilings"]:
                most = content["ceilings"]["multiply_adds"]
                result["share"] = short(job.case.dots * job.case.dim / (1e-6 * result["us"]) / most)
            content["training" if isinstance(job, Loop) else "cases"].append({**job.describe(), **result})
            keep(f"{job.name}: {result.get('us', result.get('reason'))}")
    keep("done")
    return content


def outcomes(
    jobs: Sequence[Job | Loop], rows: Iterator[children.Row]
) -> Iterator[tuple[Job | Loop, children.Row | None]]:
    """Each job with its figures, or None where there was no time for it. Where the process of a part breaks, what it
    was at and the rest of the part have failed."""
    left = {job.name: job for job in jobs}
    for row in rows:
        if "job" in row:
            yield left.pop(row.pop("job")), row
        elif "dropped" in row:
            yield left.pop(row["dropped"]), None
        elif "broke" in row:
            at = f"{row['broke']} (in {doing})" if (doing := next(iter(left), None)) else row["broke"]
            for job in left.values():
                yield job, {"status": "failed", "reason": at}


def attempt(machine: Gpu | StandIn, effort: Effort, job: Job | Loop) -> dict[str, Any]:
    """The figures of a job, or the reason why it has none: one candidate's failure is not the run's."""
    try:
        if isinstance(job, Loop):
            return loop.measure(machine, job, effort.sample_seconds)
        return measure(machine, effort, job)
    except torch.cuda.OutOfMemoryError:
        return {"status": "failed", "reason": "out of memory"}
    except Exception as error:
        return {"status": "failed", "reason": record.reason(error)}
    finally:
        torch.compiler.reset()
        machine.release()


def measure(machine: Gpu | StandIn, effort: Effort, job: Job) -> dict[str, Any]:
    """Value and gradient of a case by one candidate."""
    case = job.case
    tensors = (None if x is None else x.detach().to(machine.device) for x in inputs(case))
    given = Inputs(*tensors)  # type: ignore[arg-type]  # unpacking loses the fields' types
    given.current.requires_grad_()
    who, _, how = job.candidate.partition(", ")
    who = _backend(who)
    value, is_kept = _value(case, who, how), how in KEPT

    def step() -> tuple[Tensor, Tensor]:
        if how == "reduce-overhead":
            torch.compiler.cudagraph_mark_step_begin()
        result = value(*given.arguments({}))
        return result, torch.autograd.grad(result, given.current)[0]

    with mk.use_backend(who if who in BACKENDS else "auto"):
        kept = _kept(case, given) if is_kept else None

        def kept_step() -> tuple[Tensor, Tensor]:
            assert kept is not None
            gradient, result = kept.gradient(given.current)
            kept.push(given.current)
            return result, gradient

        body = kept_step if is_kept else step
        call: Call = machine.captured(body) if how.endswith("graph") else body
        first = machine.seconds(call, 1)
        warm = min(machine.seconds(call, 1) for _ in range(3))
        repeats = max(1, min(500, int(effort.sample_seconds / max(warm, 1e-7))))
        samples = sorted(machine.seconds(call, repeats) for _ in range(5 if warm < 1 else 1))
        result: dict[str, Any] = {
            "status": "measured",
            "us": short(1e6 * samples[len(samples) // 2]),
            "us_range": [short(1e6 * samples[0]), short(1e6 * samples[-1])],
            "first_seconds": short(first),
            **machine.profile(call),
            "extra_mib": _mib(machine.extra_bytes(call)),
        }
        if who in BACKENDS and case.n <= CHECKED:
            if kept is not None:  # by now it holds the same rows again and again
                _fill(kept, given)
            seen = [x.detach().clone() for x in call()]  # type: ignore[attr-defined]  # it returns gradients
            found = errors(case, Answer(float(seen[0]), seen[1].double()), _truth(case, given, is_kept))
            within = zip(("value", "gradient"), TOLERANCE[case.dtype], strict=True)
            result |= {"errors": {key: short(error) for key, error in found.items()}}
            result["ok"] = all(found[key] <= bound for key, bound in within)
    return result


def _value(case: Case, who: str, how: str) -> Callable[..., Tensor]:
    if who in BACKENDS:
        return library(case.distance, case.options)
    value = getattr(naive, f"{case.distance}_rows" if who == "rows" else case.distance)
    if who == "compile" or how == "compile":
        return torch.compile(value, mode=how if how in ("max-autotune", "reduce-overhead") else None)
    return value


def _truth(case: Case, given: Inputs, to_normal: bool) -> Answer:
    """By the reference, in float64, on the device."""
    wide = Inputs(*(None if x is None else x.detach().double() for x in given))  # type: ignore[arg-type]  # as above
    wide.current.requires_grad_()
    with mk.use_backend("reference"):
        value = library(case.distance, case.options)(*wide.arguments({"prior": "normal"} if to_normal else {}))
    return Answer(float(value.detach()), torch.autograd.grad(value, wide.current)[0])


def ceilings(machine: Gpu | StandIn, effort: Effort) -> dict[str, float]:
    """A large copy in bytes a second (read and written), a large float32 product in multiply-adds a second."""
    here = machine.device
    source, target = torch.ones(effort.copy // 4, device=here), torch.empty(effort.copy // 4, device=here)
    size = effort.product
    left, right = torch.ones(size, size, device=here), torch.ones(size, size, device=here)
    product = torch.empty(size, size, device=here)
    tensor_cores, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, False
    try:
        calls: list[Call] = [
            functools.partial(target.copy_, source),
            functools.partial(torch.mm, left, right, out=product),
        ]
        best = [min(machine.seconds(call, 3) for _ in range(3)) for call in calls]
    finally:
        torch.backends.cuda.matmul.allow_tf32 = tensor_cores
    return {"bytes": 2 * effort.copy / best[0], "multiply_adds": size**3 / best[1]}


def checks(own: Sequence[str], seconds: float) -> Iterator[tuple[str, str, Any]]:
    """("tests" or "sanitizer", name, result) of every file of tests by every backend and of every sanitizer, side by
    side and as they end; the first backend's begin first."""
    with ThreadPoolExecutor(max_workers=len(TESTS) + len(SANITIZERS)) as side:
        until = time.monotonic() + seconds
        running: dict[Future[Any], tuple[str, str]] = {
            side.submit(sanitizer, tool, until): ("sanitizer", tool) for tool in SANITIZERS
        }
        for candidate, name in itertools.product((*own, *_on_tensor_cores(own)), TESTS):
            if candidate in own or name.startswith("pairs"):
                running[side.submit(test, *TESTS[name], candidate, until)] = "tests", f"{candidate} {name}"
        for candidate, tool in itertools.product(_on_tensor_cores(own), SANITIZERS):
            running[side.submit(sanitizer, tool, until, candidate)] = "sanitizer", f"{tool}, {candidate}"
        for future in as_completed(running):
            yield *running[future], future.result()


def test(path: str, expression: str, candidate: str, until: float) -> dict[str, int | str]:
    """A file of tests/gpu for one backend, on tensor cores with small windows, too: counts by outcome."""
    backend = _backend(candidate)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        words = " and ".join(filter(None, (backend, expression)))
        command = [
            *_environment(candidate),
            sys.executable,
            "-m",
            "pytest",
            path,
            "-q",
            "-p",
            "no:cacheprovider",
            f"--junitxml={report}",
        ]
        command += ["-m", "not long"] * (backend == "triton")  # those have sizes that share what is compiled
        done = children.finish([*command, "-k", words], max(1.0, until - time.monotonic()))
        if done.status is None:
            return {"unfinished": last_line(done.output)}
        return _counts(report) if report.exists() else {"broken": last_line(done.output)}


def _counts(report: Path) -> dict[str, int | str]:
    suite = ElementTree.parse(report).getroot().find("testsuite")
    assert suite is not None
    total, failed, skipped = (int(suite.get(key, "0")) for key in ("tests", "failures", "skipped"))
    failed += int(suite.get("errors", "0"))
    names = [
        case.get("name", "") for case in suite if case.find("failure") is not None or case.find("error") is not None
    ]
    counts: dict[str, int | str] = {"passed": total - failed - skipped, "failed": failed, "skipped": skipped}
    return counts | ({"first_failure": names[0]} if names else {})


def _environment(candidate: str) -> list[str]:
    """The beginning of a command that tests a candidate: on tensor cores small windows go the way of large ones."""
    given = variables(candidate)
    further = {"MOW_CUDA_SINGLE": "0"} if given else {}
    return ["env", *(f"{name}={value}" for name, value in (given | further).items())]


def sanitizer(tool: str, until: float, candidate: str = "") -> str:
    """The word of one tool of compute-sanitizer on `probe`, of one of FORMS or of all that is not on tensor cores."""
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    program = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path=os.path.join(home, "bin"))
    if program is None:
        return "unavailable"
    command = [*_environment(candidate), program, "--tool", tool, "--error-exitcode", "9"]
    command += [sys.executable, "-m", "benchmarks.gpu", "probe", *([candidate] if candidate else [])]
    done = children.finish(command, max(1.0, until - time.monotonic()))
    if done.status is None:
        return "unfinished"
    if done.status == 0:
        return "no errors"
    refused = done.status != 9 and any(word in done.output for word in REFUSALS)
    return f"{'unavailable' if refused else 'failed'}: {last_line(done.output)}"


def probe(machine: Gpu | StandIn, own: Sequence[str], candidate: str = "") -> None:
    """Each distance once by each backend, its gradient alone and what a window keeps for it, with and without a prior
    sample; the CUDA kernels at all sizes, the others, which are compiled for each, at the first. Of a candidate on
    tensor cores the distances that have products."""
    own = [_backend(candidate)] if candidate else own
    for distance, backend in itertools.product(PAIRS if candidate else DISTANCES, own):
        sizes = SIZES + SORTED_SIZES * (distance == "sliced_wasserstein") + (WIDE,) * bool(candidate)
        sizes = sizes if backend == "cuda" else SIZES[:1]
        for n, k, dim in [] if isinstance(TABLE[distance][backend], str) else sizes:
            _probe(machine, Case(distance, n, k, dim, options=OPTIONS[distance]), backend, kept=not candidate)
    if candidate:
        return
    slots, head = torch.zeros(700, 20, device=machine.device), torch.tensor(699, device=machine.device)
    ring = mk.Ring(slots, head)
    for rows in (1, 300):  # one launch, and one more for the head
        ring.push(slots[:rows] + 1)
        ring.newest(rows).sum().item()
    for backend in own:
        if not isinstance(TABLE["k_center"][backend], str):
            with mk.use_backend(backend):
                mk.k_center(torch.randn(700, 20, device=machine.device), 9, start=0).radius.item()


def _probe(machine: Gpu | StandIn, case: Case, backend: str, kept: bool) -> None:
    moved = (None if x is None else x.detach().to(machine.device) for x in inputs(case))
    given = Inputs._make(moved)
    given.current.requires_grad_()
    if case.n > 1000:
        given = given._replace(directions=given.directions[:, :4])  # type: ignore[index]  # SW has some
    with mk.use_backend(backend):
        for options in ({}, {"prior": "normal"} if case.prior == "sample" else {}):
            value = library(case.distance, case.options)(*given.arguments(options))
            torch.autograd.grad(value, given.current)[0].sum().item()
            alone = library_gradient(case.distance, case.options)(*given.arguments(options))
            alone.sum().item()
        if kept and TABLE[case.distance][backend].running is not None:  # type: ignore[union-attr]  # it is no reason
            _probe_running(case, given)


def _probe_running(case: Case, given: Inputs) -> None:
    """What a window keeps for a distance to N(0, I): filled, measured, pushed and measured again."""
    running = _kept(case, given)
    for _ in range(2):
        running.gradient(given.current)[0].sum().item()
        running.push(given.current)


def _kept(case: Case, given: Inputs) -> mk.Running:
    """What a full window keeps for a distance to N(0, I)."""
    options = {name: value for name, value in case.options.items() if name != "prior"}
    if given.directions is not None:
        options["directions"] = given.directions
    function, device = getattr(mk, case.distance), given.current.device
    return _fill(mk.begin_running(function, case.n, case.dim, device=device, **options), given)


def _fill(running: mk.Running, given: Inputs) -> mk.Running:
    """So that the next measurement is over [history; current]."""
    running.fill(torch.cat([given.current.detach(), given.history]))
    return running


def table(content: dict[str, Any]) -> Iterator[str]:
    """The short table: each case's backends, and how many times faster than the others they are."""
    yield f"{content['device']['name']}; commit {str(content['commit'])[:10]}; {content['seconds']} s"
    groups: dict[str, dict[str, dict]] = {}
    for row in content["cases"]:
        groups.setdefault(row["name"], {})[row["candidate"]] = row
    others = ("plain", "rows", "compile", "compile, reduce-overhead", "compile, max-autotune")
    yield f"{'case':<20}{'backend':<24}{'us':>11}{'launches':>9}{'share':>7}  times faster than"
    for name, rows in groups.items():
        for candidate, row in rows.items():
            backend, _, how = candidate.partition(", ")
            if _backend(backend) not in content["backends"]:
                continue
            if row["status"] != "measured":
                yield f"{name:<20}{candidate:<24}{row['reason']}"
                continue
            peers = [f"{other}, graph" for other in ("plain", "rows")] if how else list(others)
            peers = [_backend(backend)] * (_backend(backend) != backend) + peers
            peers += ["compile, reduce-overhead"] * bool(how)
            ratios = [
                f"{peer} {rows[peer]['us'] / row['us']:.3g}x"
                if rows[peer]["status"] == "measured"
                else f"{peer} failed"
                for peer in peers
                if peer in rows
            ]
            wrong = "" if row.get("ok", True) else "  WRONG"
            share = f"{row['share']:.1%}" if "share" in row else "-"
            head = f"{name:<20}{candidate:<24}{row['us']:>11}{row['launches'] or '-':>9}{share:>7}"
            yield f"{head}  {', '.join(ratios)}{wrong}"
    yield from _training(content)
    if content["dropped"]:
        dropped = content["dropped"]
        yield f"dropped for want of time: {len(dropped)}, from {dropped[0]} on; the record names them all"


def _training(content: dict[str, Any]) -> Iterator[str]:
    """Steps a second of the training loop, and how many times those of the plain one."""
    rows = {(row["distance"], row["candidate"]): row for row in content["training"]}
    yield f"{'training, k = 1':<20}{'candidate':<34}{'steps/s':>9}{'launches':>9}{'kernels, us':>12}  times plain"
    for (distance, candidate), row in rows.items():
        if row["status"] != "measured":
            yield f"{distance:<20}{candidate:<34}{row['reason']}"
            continue
        plain = rows.get((distance, "plain"), {"status": "failed"})
        ratio = f"{plain['us'] / row['us']:.3g}x" if plain["status"] == "measured" else "-"
        wrong = "" if row["ok"] else "  WRONG"
        head = f"{distance:<20}{candidate:<34}{row['steps_per_second']:>9,.0f}{row['launches'] or '-':>9}"
        yield f"{head}{row['kernel_us'] or '-':>12}  {ratio}{wrong}"


def is_green(content: dict[str, Any]) -> bool:
    """Whether every test passed in time and every checked result is right."""
    finished = all("failed" in result and result["failed"] == 0 for result in content["tests"].values())
    clean = all(word == "no errors" or word.startswith("unavailable") for word in content["sanitizer"].values())
    measured = (*content["cases"], *content["training"])
    own = [row for row in measured if _backend(row["candidate"].partition(", ")[0]) in content["backends"]]
    right = all(row["status"] == "measured" and row.get("ok", True) for row in own)
    return finished and right and clean


def rehearsal() -> Effort:
    """Everything, in seconds, on a CPU."""
    return replace(
        Effort(), seconds=400.0, sample_seconds=1e-4, ns=(16, 24), ks=(1, 4), dims=(8, 5), copy=2**12, product=32
    )


def _mib(size: int | None) -> float | None:
    return None if size is None else round(size / 2**20, 2)
