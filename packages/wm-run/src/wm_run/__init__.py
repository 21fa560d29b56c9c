"""One run: replay, the loop, checkpoints, the run folder, the command line, play and dreams."""
