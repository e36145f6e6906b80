"""The command line: options, checks before any work, the levels, progress and logs."""
