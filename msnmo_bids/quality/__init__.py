"""Is a scan a FLAIR, and good enough: figures, limits, green, amber and red."""
