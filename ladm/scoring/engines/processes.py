"""A worker process and the pipe to it: started with its work, or before there is any. Imports no torch.

Importing torch and transformers takes a worker seconds, in which the supervisor reads the rows and hashes the model. So
a process that imports them is started first, and is given its work once there is a plan. It also answers what only
torch knows, such as the devices there are, so that the supervisor needs no torch of its own.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.process
import os
import signal
import sys
from collections.abc import Callable, Iterator
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, TypeVar

from ladm.cores import available_cores
from ladm.errors import LadmError, one_line, raise_if_out_of_memory
from ladm.scoring.engines.job import WorkerConfig, WorkerProcess
from ladm.scoring.engines.worker import early_main, worker_main

END_SECONDS = 10.0
"""How long a process may take to end."""
NO_MAIN_GUARD = 87
"""Exit code of a worker that, as it imports the script of the program, comes to the call that started it."""
GPU_DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
"""Where a GPU can be used one of these exists: the device of NVIDIA's driver, of WSL's, or of AMD's."""
T = TypeVar("T")


class EarlyWorker:
    """A worker process without a plan: it imports the libraries, answers questions, then becomes a worker once."""

    def __init__(self, *, threads: int | None = None) -> None:
        self._process, self._pipe = _spawn(early_main, threads, name="ladm worker")
        self._taken = False

    def call(self, function: Callable[[], T]) -> T:
        """Call a picklable function there, or here where the process is gone or a worker. Raises its LadmError."""
        if self._taken:
            return function()
        try:
            self._pipe.send(function)
            result, error = self._pipe.recv()
        except (OSError, EOFError):
            require_guarded(self._process)
            return function()
        if error is not None:
            raise error
        answer: T = result
        return answer

    def take(self, config: WorkerConfig, device: str) -> WorkerProcess | None:
        """Make it the worker of a device. None when it is one already, or is gone."""
        if self._taken or not self._process.is_alive():
            return None
        try:
            self._pipe.send((config, device))
        except OSError:
            return None
        self._taken = True
        return self._process, self._pipe

    def close(self) -> None:
        """End a process that never became a worker."""
        if not self._taken:
            end_process(self._process)
            self._pipe.close()


@contextlib.contextmanager
def early_worker(*, device: str, threads: int | None) -> Iterator[EarlyWorker | None]:
    """An early worker for `--device`, ended with the block unless it became a worker; None where nothing is gained.

    On a CPU alone the libraries are needed in this process anyway.
    """
    wanted = threads is not None or (device != "cpu" and any(Path(driver).exists() for driver in GPU_DRIVERS))
    worker = EarlyWorker(threads=threads) if wanted else None
    try:
        yield worker
    finally:
        if worker is not None:
            worker.close()


def threads_of_worker(workers: int | None) -> int | None:
    """CPU threads of each of `--workers`; None: as the libraries choose."""
    # Without this every worker would start as many threads as there are cores.
    return None if workers is None else max(1, available_cores() // workers)


def start_worker(config: WorkerConfig, device: str) -> WorkerProcess:
    """Start a process that scores units on a device."""
    return _spawn(worker_main, config, device, name=f"ladm {device}")


@contextlib.contextmanager
def _silent_tracker() -> Iterator[None]:
    """Silence the warnings of the resource tracker, a process that Python starts beside the first worker.

    It removes what ended processes left behind, such as semaphores of progress bars. Workers are killed when a run
    stops, so it would warn of "leaked" semaphores after the line that says how to resume.
    """
    sys.warnoptions.append("ignore:resource_tracker:UserWarning")
    try:
        yield
    finally:
        sys.warnoptions.remove("ignore:resource_tracker:UserWarning")


def require_guarded(process: SpawnProcess) -> None:
    """Raise LadmError where a process ended because the program's call is not under `if __name__ == "__main__":`."""
    process.join(END_SECONDS)
    if process.exitcode == NO_MAIN_GUARD:
        raise LadmError(
            'the script must make this call under `if __name__ == "__main__":`, because it starts processes, each of '
            "which imports the script (docs/python.md); without processes: --device cpu without --workers"
        )


def _spawn(target: Callable[..., None], *words: Any, name: str) -> WorkerProcess:
    # True only while a spawned process imports the script. `multiprocessing` would refuse to start another one there
    # with a traceback for every process, and the program would start more of them; like this it reports why.
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        sys.exit(NO_MAIN_GUARD)
    if multiprocessing.current_process().daemon:
        raise LadmError(
            "ladm cannot start its worker processes from a daemonic process, such as a worker of "
            "multiprocessing.Pool; call it from a worker of concurrent.futures.ProcessPoolExecutor or another process "
            "that is not daemonic. No processes are needed by --device cpu without --workers, by annotate with "
            "--num-proc 1, and by ladm.Scorer"
        )
    # Not fork: CUDA cannot be used in a forked process.
    context = multiprocessing.get_context("spawn")
    # A terminal sends Ctrl-C to every process. The child inherits the blocked signal, and ignores it before it
    # unblocks it, so that only the supervisor acts on it.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        ours, theirs = context.Pipe()
        process = context.Process(target=target, args=(*words, theirs, os.getpid()), daemon=True, name=name)
        with _silent_tracker():
            process.start()
    except OSError as error:
        raise_if_out_of_memory(error, action="start a worker process")
        raise LadmError(
            f"the system does not start a worker process: {one_line(error)}; raise its limits on processes and open "
            "files (ulimit -u, ulimit -n), or start fewer workers"
        ) from None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    # Once our copy of its end is closed, the pipe reports when the process ends.
    theirs.close()
    return process, ours


def end_process(process: SpawnProcess) -> bool:
    """Kill a process and wait for its end. False for one in a system call that does not return."""
    process.kill()
    process.join(END_SECONDS)
    if process.is_alive():
        # Or the interpreter would wait for it at its own exit.
        multiprocessing.process._children.discard(process)  # type: ignore[attr-defined]
        return False
    return True
