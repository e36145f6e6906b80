"""Scans of a site with what is known of them: diagnoses, lesion masks, training samples."""
