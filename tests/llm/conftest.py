"""Tiny models on disk, made once a session."""

import pytest
from tiny import make_tiny


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A function: family, merge_digits -> the folder of a tiny random model."""
    made = {}

    def get(family="llama", merge_digits=False):
        key = (family, merge_digits)
        if key not in made:
            made[key] = make_tiny(tmp_path_factory.mktemp("tiny") / family, family, merge_digits)
        return made[key]

    return get
