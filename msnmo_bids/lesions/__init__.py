"""From a lesion probability to lesions: mask, labels, regions, measures."""
