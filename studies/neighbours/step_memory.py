"""How much memory a step needs beyond what stays allocated between steps."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

from torch.profiler import ProfilerActivity, profile


def step_mib(step: Callable[[], object]) -> float:
    """MiB that a call of `step` has allocated at its peak beyond what stays allocated from step to step.

    Counted from the CPU allocator's own events: exact, and independent of what the system calls resident. Of two steps,
    since what the first one frees was allocated before anyone counted.
    """
    step()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
        step()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    levels = list(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))
    return (max(levels) - levels[-1]) / 2**20
