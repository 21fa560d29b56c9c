"""Fast paths, each beside a plain one of straight lines that it equals: read the plain one first."""
