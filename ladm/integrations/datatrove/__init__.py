"""`LadmScore`, a step of datatrove's pipelines. Needs datatrove."""

from ladm.integrations.datatrove.score_step import LadmScore

__all__ = ["LadmScore"]
