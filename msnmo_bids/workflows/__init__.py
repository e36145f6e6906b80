"""Nipype workflows, from the data set down to the nodes of one scan, and how they are run."""
