"""`python -m r2i ...`."""

from r2i.cli import main

if __name__ == "__main__":
    main()
