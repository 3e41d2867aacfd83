"""Files that people read -> exit 1 where they use words of the project's old dialect, and what to write instead.

    python scripts/check_prose.py                 every finding, one a line
    python scripts/check_prose.py --counts        how many there are in each folder

Looks at comments, strings and names in Python files, and at the whole text of Markdown, HTML, YAML and shell files.
Also fails where less than 2.5 % of the package's lines are comments of their own.
"""

from __future__ import annotations

import functools
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
LEAST_COMMENTS = 0.025
READ = ("*.md", "docs", "ladm", "scripts", "tests", "examples", "configs", "*.sh", "*.cff", "pyproject.toml")
SUFFIXES = {".md", ".py", ".html", ".sh", ".yaml", ".sbatch", ".cff", ".toml"}
UNREAD = {"check_prose.py", "test_check_prose.py"}

# A space stands for any white space, so that a phrase is found across a line break.
WORDS = {
    r"told": "reported, printed, warned; distinguished",
    r"tells?": "report, print, warn; distinguish",
    r"(?:say|says|said|saying) of": "report, state",
    r"so many": "N, this many, the number of",
    r"laid": "placed, written",
    r"begun": "started",
    r"asked": "requested, required",
    r"errands?": "context, request",
    r"sparing(?:ly)?": "low_memory, with less memory",
    r"poison(?:s|ed|ous|ing)?": "quarantine, bad, fill with NaN",
    r"sharers?": "a launch that shares the run",
    r"living hands?": "a live lease",
    r"(?:take|takes|taken|took|taking)(?: [\w`.-]+){0,6} apart": "decompose",
    r"anew": "again",
    r"afresh": "again",
    r"(?:scores|values|losses|layers) (?:lie|lies|lay)\b(?! in| on| between| within| above| below)": "are distributed",
    r"(?:can|could|may|might) be had": "is available",
    r"to the bit": "bit for bit, exactly",
    r"(?:goes|went|gone|going|go) on where": "resume, continue from",
    r"come so far": "reach this point",
    r"(?:is|are|was|were) there already": "exists already",
    r"thereof|wherein|whereof|hereof": "of it, in which",
    r"(?:what|which|all that) (?:is|was|were) kept": "what is stored",
    r"mend(?:s|ed|ing)?": "fix, repair",
    r"lest": "so that ... not",
    r"by heart": "from memory",
}
NAMES = {
    "told": "reported", "laid": "placed", "begun": "started", "asked": "requested", "errand": "context",
    "sparing": "low_memory", "poison": "quarantine", "poisoned": "quarantined", "poisonous": "bad", "sharer": "launch",
    "sharers": "launches", "anew": "again",
}  # fmt: skip
CLASSES = {
    "Losses": "FailureTracker", "Patience": "HangTimeout", "Work": "WorkerConfig", "Language": "CausalLM",
    "Told": "a noun", "Whole": "a noun", "Checked": "CheckResult", "Tried": "a noun", "naming": "io_errors",
}  # fmt: skip

PATTERNS = {
    re.compile(rf"\b(?:{words})\b".replace(" ", r"\s+"), re.IGNORECASE): instead for words, instead in WORDS.items()
}
# Most files have none of them, and are searched once.
ANY_WORD = re.compile("|".join(pattern.pattern for pattern in PATTERNS), re.IGNORECASE)

# The same words where they are right: in their usual sense, or as a key of a file that older versions wrote.
ALLOWED = (
    r"asked a question",
    r"""asked\.json|\["asked"\]|"asked":""",
)


class Finding(NamedTuple):
    line: int
    found: str
    instead: str


def files() -> Iterator[Path]:
    for pattern in READ:
        for path in sorted(ROOT.glob(pattern)):
            inside = sorted(path.rglob("*")) if path.is_dir() else [path]
            yield from (
                each
                for each in inside
                if each.suffix in SUFFIXES and "results" not in each.parts and each.name not in UNREAD
            )  # fmt: skip


def prose(text: str, tokens: list[tokenize.TokenInfo]) -> str:
    """Python source with all but comments and the contents of strings blanked; lines and columns stay."""
    lines = [list(re.sub(r"[^\n]", " ", line)) for line in text.splitlines(keepends=True)]
    source = text.splitlines(keepends=True)
    wanted = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    for token in tokens:
        if token.type not in wanted:
            continue
        (top, left), (bottom, right) = token.start, token.end
        for row in range(top - 1, bottom):
            start, stop = (left if row == top - 1 else 0), (right if row == bottom - 1 else len(source[row]))
            lines[row][start:stop] = source[row][start:stop]
    # Quotes and number signs are blanked too: a phrase may be cut by the end of a string or of a comment line.
    return re.sub(r"\b[rbfuRBFU]{0,2}(?=[\"'])|[\"'#]", lambda cut: " " * len(cut[0]), "".join(map("".join, lines)))


@functools.cache
def name_instead(name: str) -> str | None:
    """What to write instead of the first word of an identifier that is in the list."""
    parts = (part.lower() for part in re.findall(r"[a-z]+|[A-Z][a-z]*", name))
    return next((NAMES[part] for part in parts if part in NAMES), None)


def names(tokens: list[tokenize.TokenInfo]) -> Iterator[tuple[int, str, str]]:
    """(line, name, what to write) of identifiers with a word of the list, and of classes with a name of theirs."""
    before = ""
    for token in tokens:
        if token.type == tokenize.NAME:
            instead = name_instead(token.string)
            if before in ("class", "def"):
                instead = CLASSES.get(token.string, instead)
            if instead:
                yield token.start[0], token.string, instead
        before = token.string


def search(text: str, *, python: bool) -> list[Finding]:
    """All words of the list in the text of a file, by line."""
    for phrase in ALLOWED:
        text = re.sub(phrase, lambda allowed: re.sub(r"\w", "x", allowed[0]), text)
    readable, found = text, []
    if python:
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
        readable, found = prose(text, tokens), [Finding(*each) for each in names(tokens)]
    if ANY_WORD.search(readable):
        for pattern, instead in PATTERNS.items():
            for match in pattern.finditer(readable):
                found.append(Finding(readable.count("\n", 0, match.start()) + 1, " ".join(match[0].split()), instead))
    return sorted(found)


def comment_share() -> float:
    """Lines of the package that are a comment and nothing else, as a share of all its lines."""
    lines = [line for path in (ROOT / "ladm").rglob("*.py") for line in path.read_text(encoding="utf-8").splitlines()]
    return sum(line.lstrip().startswith("#") for line in lines) / len(lines)


def main(arguments: list[str]) -> int:
    found = {path: search(path.read_text(encoding="utf-8"), python=path.suffix == ".py") for path in files()}
    if arguments == ["--counts"]:
        folders: Counter[str] = Counter()
        for path, findings in found.items():
            folders[str(path.parent.relative_to(ROOT))] += len(findings)
        for folder, count in sorted(folders.items()):
            if count:
                print(f"{count:5} {folder}")
    else:
        for path, findings in found.items():
            for line, words, instead in findings:
                print(f'{path.relative_to(ROOT)}:{line}: "{words}"; write: {instead}')
    total, share = sum(map(len, found.values())), comment_share()
    print(f"{total} words to replace; {share:.1%} of the package's lines are comments", file=sys.stderr)
    if share < LEAST_COMMENTS:
        print(f"at least {LEAST_COMMENTS:.1%} should be: say why, where a reader would stop", file=sys.stderr)
    return int(total > 0 or share < LEAST_COMMENTS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
