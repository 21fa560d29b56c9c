"""`uv run apps/storm ...`."""

from storm.cli import main

if __name__ == "__main__":
    main()
