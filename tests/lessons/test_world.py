"""Worlds that people write: what is read, and what is refused with one line."""

import pytest

from crevasse.errors import UserError
from crevasse.lessons.world import load_world


def test_events_are_all_combinations_and_numbered_in_order(tiny):
    words = [tiny.words(tiny.at(i)) for i in range(tiny.size)]
    assert words == ["C, X", "C, Y", "A, X", "A, Y", "B, X", "B, Y"]
    assert [tiny.index(tiny.at(i)) for i in range(tiny.size)] == [*range(6)]
    assert (tiny.one_hot.sum(1) == 2).all() and len({tuple(row) for row in tiny.one_hot}) == 6


def test_the_nodes_of_a_level_cover_every_value_once(restaurant):
    for attribute in restaurant.attributes:
        for level in range(attribute.levels):
            held = [attribute.members[node] for node in attribute.nodes(level)]
            assert (sum(h.astype(int) for h in held) == 1).all()


def test_the_thesis_incident_has_its_four_chains(restaurant, incident):
    chains = [a.paths[v] for a, v in zip(restaurant.attributes, incident, strict=True)]
    assert chains == [
        ("any", "restaurant", "pancake restaurant", "IHOP", "IHOP on Main Street"),
        ("any", "weekend", "Saturday"),
        ("any", "lunch time", "1 pm"),
        ("any", "person", "tennis club", "Francois"),
    ]
    assert restaurant.size <= 20_000


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("[place", "not TOML"),
        ("place = 3", "table of kinds"),
        ("[place]", "table of kinds"),
        ("[place]\nany = []", "at least one"),
        ("[place]\nany = [1]", "list of names"),
        ('[place]\nany = "A"', "list of names"),
        ('[place]\nany = ["A"]\nB = ["C"]', "'B' is of no kind"),
        ('[place]\nany = ["A", "B"]\nA = ["C"]\nB = ["C"]', "'C' is of two kinds, 'A' and 'B'"),
        ('[place]\nany = ["Z"]\nA = ["B"]\nB = ["A"]', "circle: A < B < A"),
        ('[place]\nany = ["A"]\nA = ["any"]', "circle: any < A < any"),
        ("\n".join(f"[a{i}]\nany = {[*map(str, range(28))]}" for i in range(3)), "21,952 events; at most 20,000"),
    ],
)
def test_a_damaged_world_is_one_line(tmp_path, text, says):
    path = tmp_path / "world.toml"
    path.write_text(text)
    with pytest.raises(UserError) as e:
        load_world(path)
    assert says in str(e.value) and "\n" not in str(e.value)


def test_files_that_are_none(tmp_path):
    with pytest.raises(UserError, match="cannot read"):
        load_world(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not TOML"):
        load_world(tmp_path / "bytes.toml")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"place": "A", "companion": "Z"}, "unknown companion 'Z'"),
        ({"place": "A"}, "companion has none"),
        ({"place": "A", "companion": "X", "hour": "1 pm"}, "unknown attribute 'hour'"),
        ({"place": "cafe", "companion": "X"}, "unknown place 'cafe'"),
    ],
)
def test_an_event_has_a_known_value_of_each_attribute(tiny, values, says):
    with pytest.raises(UserError, match=says):
        tiny.event(values)
