"""`ladm` in a process of a CPU that accelerate takes for one of a GPU's, so that FSDP's own code runs without any."""

from __future__ import annotations

from typing import Any

from accelerate import state
from accelerate.utils import DistributedType

from ladm.cli.main import main

original = state.PartialState.__init__


def as_on_gpus(self: Any, *arguments: Any, **more: Any) -> None:
    original(self, *arguments, **more)
    if self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.MULTI_GPU


if __name__ == "__main__":
    state.PartialState.__init__ = as_on_gpus
    main()
