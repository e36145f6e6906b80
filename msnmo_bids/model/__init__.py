"""The joint model: lesion segmentation and diagnosis with shared features."""
