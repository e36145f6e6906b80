"""Nipype nodes: thin wrappers around plain functions."""
