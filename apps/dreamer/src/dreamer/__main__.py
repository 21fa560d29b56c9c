"""`python -m dreamer ...`."""

from dreamer.cli import main

if __name__ == "__main__":
    main()
