"""Nipype nodes: thin wrappers around plain functions, in modules named as the workflows'."""
