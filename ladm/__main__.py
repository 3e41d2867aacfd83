"""`ladm`, and `python -m ladm`: shuts the working folder out of Python's path, then starts the command line."""

# Only modules that the interpreter itself has loaded may be imported above `use_safe_path`: while the working folder is
# on the path, any other import can run a file of that name in a folder that somebody else filled.
import os
import sys


def use_safe_path(*, drop_first: bool) -> None:
    """Keep Python from importing files of the working folder, in this process and in every process that it starts.

    `drop_first`: the first entry of the path is the working folder, put there by `python -m`.
    Entries of PYTHONPATH stay, except empty ones.
    """
    os.environ["PYTHONSAFEPATH"] = "1"
    if drop_first and not sys.flags.safe_path:
        del sys.path[0]
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    # `PYTHONPATH=/opt/x:$PYTHONPATH` leaves an empty entry, which means the working folder to Python alone.
    if "" in entries and len(entries) > 1:
        os.environ["PYTHONPATH"] = os.pathsep.join(entry for entry in entries if entry)
        here = os.path.abspath("")
        if here not in entries:
            sys.path[:] = [entry for entry in sys.path if entry != here]
    # A checkout that is not installed is found through the working folder alone. Workers get this same path, and must
    # find this package in it: behind the standard library, before another installed ladm.
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if home not in sys.path:
        others = [k for k, entry in enumerate(sys.path) if os.path.isdir(os.path.join(entry, "ladm"))]
        sys.path.insert(min(others, default=len(sys.path)), home)


def main() -> None:
    """Run the command line; Ctrl-C is one line even while the program is being loaded."""
    use_safe_path(drop_first=__name__ == "__main__")
    try:
        from ladm.cli.main import run

        run()
    except KeyboardInterrupt:
        print("ladm: stopped by Ctrl-C", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
