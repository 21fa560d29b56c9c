"""`uv run apps/dmawm ...`."""

from dmawm.cli import main

if __name__ == "__main__":
    main()
