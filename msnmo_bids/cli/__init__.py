"""The programs: from the words of a command line to options, then the work."""
