"""What changed between two visits: half-way space, matched lesions, change classes, rates."""
