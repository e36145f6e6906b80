"""From a raw FLAIR to the network's input: geometry, brain mask, bias field and cube."""
