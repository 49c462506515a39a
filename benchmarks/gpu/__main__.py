"""python -m benchmarks.gpu run | static | report"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import command, record
from benchmarks.gpu import report, suite
from benchmarks.gpu.devices import Gpu, StandIn

app = command.new(__doc__)


@app.command()
def run(
    out: Annotated[
        Path | None, typer.Option(help="The folder of the record (default: the variable OUT, else results/).")
    ] = None,
    rehearse: Annotated[str, typer.Option(help="A backend of the CPU that stands in, with tiny sizes.")] = "",
) -> None:
    """Test and measure every backend that can run on this GPU, and write one JSON file."""
    if rehearse:
        machine, effort = StandIn(), suite.rehearsal()
        own = [rehearse]
    else:
        machine, effort = Gpu(), suite.Effort()
        own = suite.backends(machine.device) if suite.torch.cuda.is_available() else []
    if not own:
        print("There is no GPU here, or no backend that can run on it: nothing was tested and nothing measured.")
        raise typer.Exit(1)
    content = suite.run(machine, effort, own)
    path = suite.write(content, out or Path(os.environ.get("OUT") or report.RESULTS))
    print(f"\n{path}")
    print("\n".join(suite.table(content)))
    if not suite.is_green(content):
        print("NOT GREEN: a test failed or did not end, or a result is wrong.")
        raise typer.Exit(1)


@app.command()
def probe() -> None:
    """Small calls of everything, for compute-sanitizer."""
    suite.probe(Gpu(), suite.backends(Gpu.device))


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
