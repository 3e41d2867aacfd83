"""A part of a job -> the seconds and the CPU seconds that it took. Imports no torch."""

from __future__ import annotations

import time


class PartTimer:
    """Measures a part of the job."""

    def __init__(self, part: str, seconds: dict[str, float], cpu_seconds: dict[str, float]) -> None:
        self._part, self._seconds, self._cpu_seconds = part, seconds, cpu_seconds

    def __enter__(self) -> None:
        self._started, self._cpu_started = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        self._seconds[self._part] = time.perf_counter() - self._started
        self._cpu_seconds[self._part] = time.process_time() - self._cpu_started
