"""Fast paths, each beside plain lines in `wm_core.plain` that it equals: read those first."""
