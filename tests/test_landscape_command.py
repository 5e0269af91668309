"""`crevasse landscape`: the loss is the trial's own, ways end where they should, mistakes get a line, the page."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest
import torch

import crevasse
import crevasse.survey as surveying
from crevasse import store
from crevasse.api import make_config
from crevasse.errors import UserError
from crevasse.landscape import Ground, Place, read_place, same_ground
from crevasse.probes import sharpness
from crevasse.report import landscape as page
from crevasse.solutions import constructed
from crevasse.survey import survey

TASK, CELL = "iterated-product:p=5,T=1-3,beyond=4", "bilinear:width=16,products=32"
TRIALS = {
    "cell": (TASK, "direct", CELL, {}),
    "other": (TASK, "direct", CELL, {"seed": 1}),
    "steps": (TASK, "trace", CELL, {}),
    "transformer": (TASK, "direct", "transformer:width=16,layers=1,heads=2", {}),
    "heads": (TASK, "direct", "transformer:width=16,layers=1,heads=4", {}),
    "untrained": (TASK, "direct", CELL, {"steps": 0}),
    "untrained too": (TASK, "direct", CELL, {"steps": 0, "batch": 16}),
    "modular": ("modular:p=5,op=mul", "direct", CELL, {"train": 10, "held_out": 4}),
}


@pytest.fixture(scope="module")
def trials(tmp_path_factory):
    """Name -> the folder of a trial."""
    root = tmp_path_factory.mktemp("trials")
    fields = {"steps": 20, "batch": 32, "train": 60, "held_out": 40, "probe_every": 10, "probe_rows": 24,
              "rule": "adamw:lr=0.02"}  # fmt: skip
    found = {}
    for name, (task, form, model, more) in TRIALS.items():
        result = crevasse.run(task, form, model, out=root, **(fields | more))
        assert result["status"] == "done"
        found[name] = root / "trials" / result["trial"]
    for status in ("diverged", "running"):
        record = store.load_trial(found["cell"]) | {"id": status, "status": status, "files": {}}
        found[status] = store.make_folder(root / "trials" / status)
        store.write_json(found[status] / store.TRIAL, store.seal(record))
    return found


def shorten(monkeypatch):
    """A coarser survey."""
    monkeypatch.setattr(surveying, "BEND", 10)
    monkeypatch.setattr(surveying, "GRID", 6)
    monkeypatch.setattr(surveying, "DRAWS", 2)


@pytest.fixture(scope="module")
def surveyed(trials):
    """Two trials and the formula, all three measured."""
    places = [read_place(trials["cell"]), read_place(trials["other"])]
    places.append(Place(surveying.FORMULA, places[0].config, constructed(places[0].config)))
    torch.set_num_threads(1)
    ground = Ground(places[0].config)
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        return places, ground, survey(places, ground)


@pytest.mark.parametrize("name", ["cell", "steps", "transformer"])
def test_the_loss_is_the_one_that_the_trial_read_at_its_end(trials, name):
    place = read_place(trials[name])
    ground = Ground(place.config, problems=place.config.probe_rows)
    read = store.read_columns(trials[name] / store.LEDGER)["train_loss"][-1]
    assert ground.holds(place.weights)
    assert float(ground.loss(place.weights)) == pytest.approx(read, rel=2e-6)
    assert ground.read(place.weights) == (float(ground.loss(place.weights)), ground.exact(place.weights))


@pytest.mark.parametrize("name", ["cell", "transformer"])
def test_the_share_right_is_the_score_that_the_trial_got(trials, name):
    place, result = read_place(trials[name]), store.load_trial(trials[name])["result"]
    for split, score in {"train": result["train"], **result["splits"]}.items():
        # The train score is of as many problems as are held out at most.
        assert Ground(place.config, split, place.config.held_out).exact(place.weights) == pytest.approx(score)
    assert 0 < result["train"] < 1, "so that the scores tell something"


@pytest.mark.parametrize("name", ["cell", "transformer"])
def test_curvature_is_the_change_of_the_slope(trials, name):
    place = read_place(trials[name])
    ground, at = Ground(place.config), place.weights.double()
    way = torch.randn(len(at), generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def slope(weights):
        weights = weights.clone().requires_grad_()
        return torch.autograd.grad(ground.loss(weights), weights)[0]

    h = 1e-5
    change = (slope(at + h * way) - slope(at - h * way)) / (2 * h)
    found = sharpness.hessian_product(ground.loss, at)(way)
    assert torch.linalg.vector_norm(found) > 0
    torch.testing.assert_close(found, change, rtol=1e-4, atol=1e-6 * float(change.abs().max()))


def test_the_formula_answers_all_and_every_point_is_read_as_it_is(surveyed):
    places, ground, found = surveyed
    assert [p["point"] for p in found["points"]] == ["A", "B", "C"]
    assert [p["trial"] for p in found["points"]] == [places[0].name, places[1].name, "constructed"]
    assert found["points"][2]["exact"] == 1.0 > found["points"][0]["exact"]
    for point, place in zip(found["points"], places, strict=True):
        assert point["loss"] == float(ground.loss(place.weights))
        for change in point["changes"].values():
            assert change["radius"] == [0.0, *surveying.RADII]
            assert (change["loss"][0], change["exact"][0]) == (point["loss"], point["exact"])
    ways = sharpness.directions(places[0].weights, 2, seed=surveying.SEED, rows=ground.rows)
    reads = [float(ground.loss(places[0].weights + surveying.RADII[-1] * way)) for way in ways]
    mean = sum(reads) / len(reads)
    assert found["points"][0]["changes"]["row"]["loss"][-1] == pytest.approx(mean, rel=1e-5)


def test_every_way_begins_and_ends_at_its_points(surveyed):
    places, ground, found = surveyed
    at = {p["point"]: p["loss"] for p in found["points"]}
    assert [p["pair"] for p in found["pairs"]] == ["A–B", "A–C", "B–C"]
    for pair in found["pairs"]:
        a, b = pair["pair"].split("–")
        assert pair["distance_aligned"] <= pair["distance"] * (1 + 1e-6)
        for way in ("straight", "aligned", "bent"):
            losses, barrier = pair[way]["losses"], pair[way]["barrier"]
            assert (losses[0], losses[-1]) == pytest.approx((at[a], at[b]), abs=1e-5)
            over = [v - (losses[0] + t * (losses[-1] - losses[0])) for t, v in zip(pair["t"], losses, strict=True)]
            assert barrier == pytest.approx(max(over)) and barrier >= 0
    middle = ground.loss((places[0].weights + places[1].weights) / 2)
    assert found["pairs"][0]["straight"]["losses"][12] == pytest.approx(float(middle), rel=1e-5)
    assert found["plane"]["corners"] == ["A", "B", "C"] and found["plane"]["path"] == []
    assert found["plane"]["places"][0] == [0, 0]


def test_of_two_points_the_third_corner_is_the_bend(trials, monkeypatch):
    shorten(monkeypatch)
    places = [read_place(trials[name]) for name in ("cell", "other")]
    found = survey(places, Ground(places[0].config))
    plane, corners = found["plane"], found["plane"]["places"]
    assert plane["corners"] == ["A", "B", "bend"]
    assert plane["path"][0] == corners[0] and plane["path"][-1] == pytest.approx(corners[1], abs=1e-5)
    middle = [(a + 2 * bend + b) / 4 for a, b, bend in zip(*corners, strict=True)]
    assert plane["path"][12] == pytest.approx(middle, abs=1e-4)
    assert any("bend" in note for note in found["notes"])


def test_what_is_tolerated_is_of_the_right_answers_not_of_all():
    assert surveying._tolerance([0.0, 0.1, 0.2], [0.5, 0.5, 0.4]) == pytest.approx(0.15)
    assert surveying._tolerance([0.0, 0.1, 0.2], [0, 0, 0]) is None


def test_the_sentence_compares_solutions_alone_and_says_which_is_sharper(surveyed):
    *_, found = surveyed
    assert "raw measures depend on how a function is written in weights." in found["answer"]

    def said(*points):
        some = [
            {"point": n, "exact": e, "tolerance": t, "trace": {"value": v}}
            for n, (e, t, v) in zip("ABC", points, strict=False)
        ]
        return surveying._answer(found | {"points": some, "pairs": found["pairs"][: 1 if len(some) == 2 else 3]})

    both = said((1.0, 0.1, 30.0), (1.0, 0.2, 20.0))
    assert "A is sharper than B by the scale-invariant measure" in both and ") and by the raw one" in both
    other = said((1.0, 0.1, 3.0), (1.0, 0.2, 20.0))
    assert "A is sharper than B by the scale" in other and "; B is sharper than A by the raw one" in other
    three = said((1.0, 0.3, 3.0), (1.0, 0.2, 2.0), (1.0, 0.1, 2.5))
    assert "C is the sharpest by the scale" in three and "; A is the sharpest by the raw one" in three
    assert "cannot be compared" in said((0.5, 0.1, 30.0), (1.0, 0.2, 20.0))
    assert "Neither is sharper by the scale" in said((1.0, 0.5, 1.0), (1.0, 0.5, 2.0))
    assert "B is sharper than A by the scale" in said((1.0, 0.5, 1.0), (1.0, 0.2, 2.0), (0.3, 0.1, 9.0))


# --- mistakes ----------------------------------------------------------------------------------------------------


def command(monkeypatch, capsys, *words):
    from crevasse.cli import main

    monkeypatch.setattr(sys, "argv", ["crevasse", "landscape", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code, *capsys.readouterr()


@pytest.mark.parametrize(
    ("names", "needles"),
    [
        (["cell"], ["two or three", "not 1"]),
        (["cell", "other", "untrained", "constructed"], ["two or three", "not 4"]),
        (["constructed", "constructed"], ["one of them a trial"]),
        (["cell", "cell"], ["twice"]),
        (["cell", "constructed", "constructed"], ["constructed stands there twice"]),
        (["untrained", "untrained too"], ["the same weights"]),
        (["cell", "nowhere"], ["no trial 'nowhere'"]),
        (["cell", "diverged"], ["no trained weights", "diverged"]),
        (["cell", "running"], ["no trained weights", "running"]),
        (["cell", "transformer"], ["one architecture", "bilinear", "transformer"]),
        (["transformer", "heads"], ["one architecture", "heads=2"]),  # as many weights, of the same shapes
        (["modular", "constructed"], ["no weights are known by formula", "modular"]),
        (["cell", "other", "--split", "interpolation"], ["no split interpolation", "random"]),
    ],
)
def test_a_mistake_gets_one_line_and_exit_2(trials, tmp_path, monkeypatch, capsys, names, needles):
    monkeypatch.chdir(tmp_path)
    code, out, err = command(monkeypatch, capsys, *(trials.get(n, n) for n in names), "--out", tmp_path / "o")
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("crevasse: ") and all(n in err for n in needles), err
    assert not list(tmp_path.iterdir()), "nothing is half written"


def test_a_trial_without_its_weights_is_refused(trials, tmp_path):
    record = store.load_trial(trials["untrained"]) | {"files": {}}
    store.write_json(tmp_path / store.TRIAL, store.seal(record))
    with pytest.raises(UserError, match="damaged; remove"):
        read_place(tmp_path)


def test_language_models_are_refused_and_another_alphabet_is_another_architecture(trials):
    place = read_place(trials["cell"])

    class Speaks(type(place.config.model)):
        def tokenizer(self):
            return object()

    speaks = dataclasses.replace(place.config)
    object.__setattr__(speaks, "model", Speaks(width=16, products=32))
    with pytest.raises(UserError, match="an alphabet of their own"):
        Ground(speaks)
    larger = make_config("iterated-product:p=7,T=1-3,beyond=4", "direct", CELL, train=60, held_out=40)
    with pytest.raises(UserError, match="one architecture"):
        same_ground([place, Place("larger", larger, place.weights)])


# --- what is written ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_json_file_and_page_tell_the_same_and_the_page_opens(trials, surveyed, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(Path(__file__).parent / "report")
    from chromium import CHROMIUM, FLAGS, HOSTILE, Opened
    from playwright.sync_api import sync_playwright

    shorten(monkeypatch)
    monkeypatch.chdir(tmp_path)
    names = [trials["cell"], "constructed"]
    code, out, err = command(monkeypatch, capsys, *names, "--split", "random", "--json")
    assert code == 0 and "between A–B" in err
    folder = tmp_path / "crevasse-out" / f"landscape-{trials['cell'].name}-constructed"
    found = json.loads(out)
    assert sorted(p.name for p in folder.iterdir()) == ["index.html", "landscape.json"]
    assert json.loads((folder / "landscape.json").read_text()) == found
    assert found["split"] == "random" and found["points"][1]["exact"] == 1.0
    assert "constructed --split random</code>" in (folder / "index.html").read_text("utf-8")
    code, out, err = command(monkeypatch, capsys, *names, "--quiet", "--out", tmp_path / "quiet")
    assert (code, err) == (0, "") and str(tmp_path / "quiet" / "index.html") in out

    hostile = surveyed[2] | {"task": HOSTILE, "notes": [HOSTILE]}
    (tmp_path / "three.html").write_text(page.render(hostile, HOSTILE), "utf-8")
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for file, pictures in ((folder / "index.html", 6), (tmp_path / "three.html", 8)):
            opened = Opened(browser, file, reduced_motion="reduce")
            opened.draw_all()
            assert opened.page.locator("[data-picture]").count() == pictures
            assert opened.undrawn() == [] and opened.trouble == []
            answer = (found if pictures == 6 else hostile)["answer"]
            assert opened.page.locator("h1").inner_text() == answer
            names = opened.page.locator("[data-picture=plane] .annotation-text").all_text_contents()
            assert names == (["A", "B", "bend"] if pictures == 6 else ["A", "B", "C"])
            for width in (1280, 390):
                opened.page.set_viewport_size({"width": width, "height": 844})
                opened.page.wait_for_timeout(400)  # plotly waits for a window that comes to rest
                assert opened.page.evaluate("document.documentElement.scrollWidth") == width
            assert opened.page.evaluate("document.images.length") == 0
            assert {u.split(":")[0] for u in opened.requests} == {"file"}
        browser.close()


def test_a_contour_is_drawn_for_each_power_of_ten_in_the_plane():
    def levels(low, high):
        return page._levels({"losses": [[low, None], [high, low]]})

    assert levels(0.05, 5) == pytest.approx([0.1, 0.3, 1, 3])
    assert levels(0.0005, 50) == pytest.approx([0.001, 0.01, 0.1, 1, 10])
    assert levels(2.0, 2.0) == []
