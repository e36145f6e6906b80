"""Synthetic T2-FLAIR with known lesions: anatomy, lesions, contrast, acquisition."""
