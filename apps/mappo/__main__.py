"""`uv run apps/mappo ...`."""

from mappo.cli import main

if __name__ == "__main__":
    main()
