"""`--rows A B` -> `--rows A --rows B`, which is how click reads a flag with several values."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import click


def repeat_flags(args: Sequence[str], params: Sequence[click.Parameter], *, several: Collection[str]) -> list[str]:
    """The words of a command with every flag of `several` in front of each of its values.

    Only behind an argument, because in `--rows A RUN` the second word is the argument that is still missing; and not
    where the flag is repeated already.
    """
    if not several:
        return list(args)
    with_value = {name for p in params if isinstance(p, click.Option) and not p.is_flag for name in p.opts}
    made: list[str] = []
    has_argument, current = False, None
    words = iter(args)
    for word in words:
        if word.startswith("-"):
            current = word if word in several and has_argument and args.count(word) == 1 else None
            made.append(word)
            made += [value for value in [next(words, None)] if value is not None] if word in with_value else []
        elif current is not None:
            made += [current, word]
        else:
            has_argument = True
            made.append(word)
    return made
