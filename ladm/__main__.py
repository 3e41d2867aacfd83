"""`ladm`, which is `python -m ladm`: Ctrl-C is told in one line even while the program is being loaded."""

import sys


def main() -> None:
    try:
        from ladm.cli.main import run

        run()
    except KeyboardInterrupt:
        print("ladm: stopped by Ctrl-C", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
