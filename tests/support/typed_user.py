"""What a type checker knows of `import ladm`. No test runs this file: scripts/test.sh checks it with mypy."""

from __future__ import annotations

from typing import assert_type

import ladm

assert_type(ladm.Scorer("m").score([1])[0].score, float | None)
assert_type(ladm.open_run("r").is_finished, bool)
assert_type(ladm.prepare("s", tokenizer="t", output="o").rows, int)
# An unused comment of this kind is an error too.
ladm.nothing  # type: ignore[attr-defined]  # noqa: B018
