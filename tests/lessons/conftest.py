"""A world small enough to be worked out by hand."""

from pathlib import Path

import pytest

from crevasse.lessons.world import World, default_world, load_world

TINY = """
[place]
any = ["cafe", "C"]
cafe = ["A", "B"]

[companion]
any = ["X", "Y"]
"""


@pytest.fixture
def tiny(tmp_path: Path) -> World:
    """Places A, B (both cafes) and C, companions X and Y: six events."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return load_world(path)


@pytest.fixture(scope="session")
def restaurant() -> World:
    return default_world()


@pytest.fixture(scope="session")
def incident(restaurant: World) -> tuple[int, ...]:
    """The thesis' own."""
    return restaurant.event(
        {"place": "IHOP on Main Street", "day": "Saturday", "hour": "1 pm", "companion": "Francois"}
    )
