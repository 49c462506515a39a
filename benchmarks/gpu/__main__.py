"""python -m benchmarks.gpu run | static | report"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks import command, record
from benchmarks.gpu import report, suite
from benchmarks.gpu.devices import Gpu, StandIn
from mow_kernels.registry import BACKENDS

app = command.new(__doc__)


@app.command()
def run(
    out: Annotated[
        Path | None, typer.Option(help="The folder of the record (default: the variable OUT, else results/).")
    ] = None,
    rehearse: Annotated[str, typer.Option(help="A backend of the CPU that stands in, with tiny sizes.")] = "",
    since: Annotated[float, typer.Option(help="Seconds since 1970 from which the time counts (default: now).")] = 0,
) -> None:
    """Test and measure every backend that can run on this GPU, and write one JSON file."""
    machine, effort, own = _what(rehearse)
    if since:
        effort = replace(effort, seconds=effort.seconds - (time.time() - since))
    if not own:
        print("There is no GPU here, or no backend that can run on it: nothing was tested and nothing measured.")
        raise typer.Exit(1)
    kept: list[Path] = []

    def write(content: dict[str, Any]) -> None:
        if kept:
            record.keep(kept[0], content)
        else:
            kept.append(record.write(content, out or Path(os.environ.get("OUT") or report.RESULTS)))

    def command(name: str, seconds: float) -> list[str]:
        options = [f"--rehearse={rehearse}"] * bool(rehearse)
        return [sys.executable, "-m", "benchmarks.gpu", "part", *options, name, str(seconds)]

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as an exception, which ends the processes of the parts
    content = suite.run(machine, effort, own, command, write)
    print(f"\n{kept[0]}")
    print("\n".join(suite.table(content)))
    if not suite.is_green(content):
        print("NOT GREEN: a test failed or did not end, or a result is wrong.")
        raise typer.Exit(1)


@app.command(hidden=True)
def part(name: str, seconds: float, path: Path, rehearse: str = "") -> None:
    """One part of a run, in a process of its own, which adds its rows to a file as they come."""
    os.environ |= suite.variables(name)  # read when a backend is first called
    machine, effort, own = _what(rehearse)
    if name == "ceilings":
        rows = iter([suite.ceilings(machine, effort)])
    else:
        rows = suite.work(machine, effort, suite.parts(effort, own)[name], seconds)
    with path.open("w", buffering=1) as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")


def _what(rehearse: str) -> tuple[Gpu | StandIn, suite.Effort, list[str]]:
    """The machine, the effort and the backends."""
    if rehearse:
        if rehearse not in BACKENDS:
            raise typer.BadParameter(
                f"is {rehearse!r}; it must be one of {', '.join(BACKENDS)}", param_hint="--rehearse"
            )
        return StandIn(), suite.rehearsal(), [rehearse]
    return Gpu(), suite.Effort(), suite.backends(Gpu.device) if suite.torch.cuda.is_available() else []


@app.command()
def probe(candidate: Annotated[str, typer.Argument(help="On tensor cores, with its environment.")] = "") -> None:
    """Small calls of everything, for compute-sanitizer."""
    suite.probe(Gpu(), suite.backends(Gpu.device), candidate)


@app.command()
def static(targets: Annotated[list[str] | None, typer.Option(help="sm_80, gfx942, ...: all of them.")] = None) -> None:
    """Compile the Triton kernels and write down what the compiler says; needs no GPU."""
    from benchmarks.gpu import static as compiler

    if reason := compiler.missing():
        print(f"{reason}; both come with nvcc and with Triton")
        raise typer.Exit(1)
    rows = []
    for kernel in compiler.kernels():
        for target in targets or compiler.TARGETS:
            rows.append(compiler.inspect(kernel, target))
            print(rows[-1], flush=True)
    head = record.head("python -m benchmarks.gpu static", 0)
    versions = head["versions"] | {"triton": compiler.triton.__version__}
    report.write_static({key: head[key] for key in ("created", "command")} | {"versions": versions}, rows)


@app.command(name="report")
def make_report() -> None:
    """Make docs/gpu.md."""
    command.wrote(report.write_page())


if __name__ == "__main__":
    sys.exit(app())
