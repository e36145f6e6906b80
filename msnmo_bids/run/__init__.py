"""What is to be done, doing it, and keeping a record of it; the command line ends before this."""
