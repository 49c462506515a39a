"""How a device's time, launches and memory are taken; the CPU stands in for a GPU where the suite itself is tested."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from mow.training.cuda_graph import CudaGraphs

Call = Callable[[], object]


class Gpu:
    """Time by events, launches and kernels' own time by the profiler."""

    device = torch.device("cuda")
    has_graphs = True

    def seconds(self, call: Call, repeats: int) -> float:
        """A call, back to back with others: the device's time, or the host's where that is longer."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(repeats):
            call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / repeats

    def captured(self, call: Call) -> Call:
        """The call as the replay of a graph."""
        graphs = CudaGraphs(self.device, [])
        for _ in range(3):
            graphs.warm_up(call)
        repeat, kept = graphs.record(call)  # what the graph writes has to live as long as it does

        def replay() -> object:
            repeat()
            return kept

        return replay

    def profile(self, call: Call) -> dict[str, Any]:
        """Kernels, copies and fills that a call puts on the device, and the microseconds that they run, waiting in
        between left out (CUPTI's); None where the profiler does not say."""
        try:
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
                call()
                torch.cuda.synchronize()
        except RuntimeError:
            return {"launches": None, "kernel_us": None}
        ran = [
            event.time_range.elapsed_us()
            for event in profile.events()
            if event.device_type == torch.autograd.DeviceType.CUDA and not getattr(event, "is_user_annotation", False)
        ]
        return {"launches": len(ran) or None, "kernel_us": round(sum(ran), 2) or None}

    def extra_bytes(self, call: Call) -> int | None:
        """What a call allocates at its peak beyond what was there before."""
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before

    def release(self) -> None:
        torch.cuda.empty_cache()

    def check(self) -> None:
        """Raises what the device has been left with: after some errors nothing runs any more in this process."""
        torch.cuda.synchronize()

    def describe(self) -> dict[str, Any]:
        about = torch.cuda.get_device_properties(self.device)
        return {
            "name": about.name,
            "memory_gib": round(about.total_memory / 2**30, 1),
            "multiprocessors": about.multi_processor_count,
            "capability": f"{about.major}.{about.minor}",
            "toolkit": torch.version.cuda or torch.version.hip,
        }


class StandIn:
    """The CPU, for a rehearsal: it has no graphs, and its figures are no figures."""

    device = torch.device("cpu")
    has_graphs = False

    def seconds(self, call: Call, repeats: int) -> float:
        started = time.perf_counter()
        for _ in range(repeats):
            call()
        return (time.perf_counter() - started) / repeats

    def captured(self, call: Call) -> Call:
        return call

    def profile(self, call: Call) -> dict[str, Any]:
        return {"launches": None, "kernel_us": None}

    def extra_bytes(self, call: Call) -> int | None:
        return None

    def release(self) -> None:
        pass

    def check(self) -> None:
        pass

    def describe(self) -> dict[str, Any]:
        return {"name": "CPU (a rehearsal, no figures)"}
