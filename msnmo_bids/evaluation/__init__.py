"""Evaluation: from masks and probabilities to metrics, statistics, tables, figures and a page."""
