"""What makes and checks the shipped weights; not part of the package."""
