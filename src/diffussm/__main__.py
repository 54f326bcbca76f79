"""`python -m diffussm` is the `diffussm` command."""

from diffussm.cli import main

if __name__ == "__main__":
    main()
