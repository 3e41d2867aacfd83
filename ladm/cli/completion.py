"""What the shell offers behind a flag or in place of an argument when Tab is pressed."""

from __future__ import annotations

import typing
from collections.abc import Callable

import click
from click.shell_completion import CompletionItem

from ladm.settings.field_types import choices
from ladm.settings.fields import Setting

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def completer_of(field: Setting) -> Completer:
    """The words of a choice; paths for any other text, which may be a file or a folder; nothing for a number."""
    words = choices(field.kind)
    takes_text = str in (field.kind, *typing.get_args(field.kind))

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
        found = [CompletionItem(word) for word in words if word.startswith(incomplete)]
        # An item of this kind makes the shell complete paths by itself.
        return found + [CompletionItem(incomplete, type="file")] * (takes_text and not words)

    return complete
