"""Lessons: what is to be learnt from a few examples, and how far it reaches."""
