"""`python -m po_dreamer ...`."""

from po_dreamer.cli import main

if __name__ == "__main__":
    main()
