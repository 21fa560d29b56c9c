"""What a run is: the loop, the run folder, checkpoints, the command line. `pip install "wm-core[run]"` brings what it needs."""
