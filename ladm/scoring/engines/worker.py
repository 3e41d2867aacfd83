"""A process that scores units for a supervisor which watches it. Imports no torch."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from multiprocessing.connection import Connection

from ladm.cores import share_cores
from ladm.errors import LadmError, is_out_of_memory, lack_of_memory, one_line
from ladm.runs.folder import Run
from ladm.scoring.engines.batch_sizes import BatchSizes
from ladm.scoring.engines.events import UnitSealed, WorkerBroken, WorkerEvent, WorkerFailed, WorkerReady
from ladm.scoring.engines.job import WorkerConfig
from ladm.scoring.engines.score_unit import score_unit
from ladm.storage.locks import hold_as_worker


def worker_main(config: WorkerConfig, device: str, pipe: Connection, parent: int) -> None:
    """The whole life of a worker process: it sends `WorkerReady`, then the events of every unit that it is given.

    Its last event is `WorkerFailed`, which ends the run, or `WorkerBroken`, after which another takes over.
    """
    _begin(parent)
    _serve(config, device, pipe)


def early_main(threads: int | None, pipe: Connection, parent: int) -> None:
    """A process that imports the libraries first. It answers each function with (result, None) or (None, the error).

    What it is sent last is a `WorkerConfig` and a device: from then on it is a worker like any other.
    """
    _begin(parent)
    _limit_threads(threads)
    try:
        # For their side effect: by the time the supervisor has read the rows, they are there.
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except Exception:
        # The supervisor finds this process gone, needs them itself, and reports the error as its own.
        return
    with contextlib.suppress(EOFError, BrokenPipeError):
        while callable(message := pipe.recv()):
            answer, problem = None, None
            try:
                answer = message()
            except LadmError as error:
                problem = error
            except Exception:
                # Of a library: the supervisor calls the function itself, and reports the error as its own.
                return
            pipe.send((answer, problem))
        config, device = message
        _serve(config, device, pipe)


def _begin(parent: int) -> None:
    _die_with_parent(parent)
    share_cores()
    # Ctrl-C is for the supervisor, which stops its workers; SIGTERM ends this process at once.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _limit_threads(threads: int | None) -> None:
    if threads is not None:
        # Read by the libraries when they are first imported, which is later than this.
        os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)


def _serve(config: WorkerConfig, device: str, pipe: Connection) -> None:
    def send(event: WorkerEvent) -> None:
        pipe.send(event)

    scoring = False
    try:
        _limit_threads(config.threads)
        hold_as_worker(config.folder)
        run, rows = Run.read(config.folder), config.open_rows()
        guard = config.input_guard(rows)
        scorer = config.make_scorer(device)
        sizes = BatchSizes(config.batch_rows)
        send(WorkerReady())
        scoring = True
        while (assignment := pipe.recv()) is not None:
            for event in score_unit(run, assignment, rows, scorer, sizes=sizes, guard=guard):
                send(event)
            send(UnitSealed())
    except LadmError as error:
        send(WorkerFailed(error))
    except (EOFError, BrokenPipeError):
        return
    except Exception as error:
        what = f"{type(error).__name__}: {one_line(error)}"
        if not scoring:
            if is_out_of_memory(error):
                send(WorkerFailed(lack_of_memory(error, action=f"start the worker on {device}")))
                return
            send(WorkerFailed(LadmError(f"the worker on {device} failed: {what}")))
            return
        # After such an error every later call to a CUDA device may fail. A new process goes on, and finds out which
        # row it is; this one leaves without the clean-up that would touch the device again.
        send(WorkerBroken(f"failed ({what})"))
        pipe.close()
        os._exit(1)


def _die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its supervisor ends, whatever the cause."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    # The parent may have ended before the call: then no signal will come.
    if os.getppid() != parent:
        os._exit(1)
