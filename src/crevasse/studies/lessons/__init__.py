"""What lessons are worth, and how far one example reaches."""
