"""msnmo: lesion segmentation and MS/NMOSD pattern scores from T2-FLAIR, as a BIDS App."""
