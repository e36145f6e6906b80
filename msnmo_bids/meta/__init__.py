"""Meta-analysis: results of studies or of sites pooled into one, with what they differ by."""
