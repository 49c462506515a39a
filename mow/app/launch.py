"""`mow train --processes`: several processes by PyTorch's own launcher, and one error where one fails."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from mow.app.options import Options
from mow.distributed.ranks import RankError
from mow.startup import LAUNCHED

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, name)]


class LaunchError(RuntimeError):
    """A process failed; the message says which, if not what it said itself."""


def launch(words: Sequence[str], processes: int) -> None:
    """Run `mow` with these words in so many processes of this machine, and wait for them.

    The first one writes to this process's output, the others' is kept from sight. When one fails, all are ended.

    Raises:
        LaunchError: one failed. Of several the reason of the first that did not fail for another one's sake.
        KeyboardInterrupt: Ctrl-C, after all processes have ended.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    threads = max(1, (os.cpu_count() or 1) // processes)
    with (
        tempfile.TemporaryDirectory() as logs,
        _quiet(),
        _environment({LAUNCHED: "1", "OMP_NUM_THREADS": f"{threads}"}),
    ):
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=logs, redirects=dict.fromkeys(range(1, processes), Std.ALL)),
        )
        try:
            elastic_launch(config, sys.executable)("-m", "mow", *words)
        except SignalException as error:
            raise KeyboardInterrupt from error
        except ChildFailedError as error:
            raise LaunchError(_told(error.failures, processes, Path(logs))) from None


def check(processes: int, options: Options | None) -> None:
    """Whether so many processes can train with these options, resolved; None for those of a run that goes on.

    Raises:
        ValueError: by name.
    """
    if "RANK" in os.environ:
        raise ValueError(f"processes is {processes} within torchrun, which has started its own: use one of the two")
    if options is None:
        return
    if processes > options.k:
        raise ValueError(f"k is {options.k} and processes {processes}; k must be at least as many: one for each")
    if options.device == "cuda" and processes > torch.cuda.device_count():
        raise ValueError(f"processes is {processes}; there are {torch.cuda.device_count()} GPUs, one for each")


def launched() -> bool:
    """Whether `launch` started this process."""
    return LAUNCHED in os.environ


def hand_over(error: BaseException) -> None:
    """Leave an error to the process that launched this one, and which tells of it."""
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

    get_error_handler().record_exception(error)


def _told(failures: dict[int, Any], processes: int, logs: Path) -> str:
    """What is wrong, from the process that failed by itself."""
    handed = {rank: failure.error_file_data.get("message") for rank, failure in failures.items()}
    words = {rank: message["message"] for rank, message in handed.items() if isinstance(message, dict)}

    def secondary(rank: int) -> tuple[bool, float]:
        return words.get(rank, "").startswith(RankError.__name__), failures[rank].timestamp

    rank = min(failures, key=secondary)
    if rank in words:
        return " ".join(words[rank].partition(": ")[2].split())
    who, code = f"process {rank + 1} of {processes}", failures[rank].exitcode
    if code < 0:
        return f"{who} was ended by {signal.Signals(-code).name}"
    said = "".join(path.read_text(errors="replace") for path in logs.glob(f"*/attempt_0/{rank}/stderr.log"))
    return f"{who} ended with exit code {code}" + (f"; it said:\n{said.rstrip()}" if said else "")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the launcher logs beside its errors, and with the signals' handlers as before in the end."""
    level, handlers = logging.root.manager.disable, {number: signal.getsignal(number) for number in _SIGNALS}
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(level)
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """With these variables in the environment, which what is there already keeps."""
    before = dict(os.environ)
    os.environ.update({**variables, **before})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
