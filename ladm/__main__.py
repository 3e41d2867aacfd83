"""`python -m ladm` is `ladm`."""

from ladm.cli import main

if __name__ == "__main__":
    main()
