"""Every combination is tuned as much as the others, by validation alone, and a search that is repeated goes on."""

import json
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from crevasse import api, store
from crevasse.errors import UserError
from crevasse.sweep import search as searching

TEXT = """
task = "iterated-product:p=7,T=1-3,beyond=4"
model = "bilinear:width=8,products=8"
steps = 20
batch = 32
train = 60
held_out = 20
probe_rows = 16
seeds = 2
[grid]
rule = ["sgd", "adamw"]
[search]
tries = 5
[search.space]
"rule.lr" = { low = 1e-3, high = 1e-1, log = true }
"rule.decay" = [0.01, 0.1]
[search.space.sgd]
rule.momentum = { low = 0, high = 0.9 }
rule.lr = { low = 1e-2, high = 1, log = true }
"""


@pytest.fixture
def sweep(tmp_path):
    """Run the search that a text describes, in this process."""

    def run(text=TEXT, out="out", **options):
        path = tmp_path / "s.toml"
        path.write_text(text)
        return api.sweep(path, out=tmp_path / out, workers=1, **options)

    return run


def values(result):
    """What was tried, combination by combination."""
    return [[t["values"] for t in line["tries"]] for line in result["settings"]]


def test_every_combination_gets_as_many_tries_in_its_own_space(sweep):
    result = sweep()
    assert [line["setting"] for line in result["settings"]] == [{"rule": "sgd"}, {"rule": "adamw"}]
    sgd, adamw = values(result)
    assert len(sgd) == len(adamw) == 5
    for tried in sgd:
        assert set(tried) == {"rule.momentum", "rule.lr"}
        assert 0 <= tried["rule.momentum"] <= 0.9 and 0.01 <= tried["rule.lr"] <= 1
    assert len({tried["rule.momentum"] for tried in sgd}) == 5, "a range of an option that is no whole number is dense"
    for tried in adamw:
        assert set(tried) == {"rule.lr", "rule.decay"}
        assert 1e-3 <= tried["rule.lr"] <= 0.1 and tried["rule.decay"] in (0.01, 0.1)
    assert (result["trials"], result["ran"], result["failed"]) == (20, 20, 0)


def test_the_best_is_chosen_by_the_last_reading_on_validation(sweep, tmp_path):
    for line in sweep()["settings"]:
        means = []
        for tried in line["tries"]:
            ledgers = [store.read_columns(tmp_path / "out/trials" / i / "ledger.parquet") for i in tried["trials"]]
            means.append(np.mean([ledger["held_out_loss"][-1] for ledger in ledgers]))
            assert tried["validation"] == pytest.approx(means[-1])
        best = line["tries"][int(np.argmin(means))]
        assert (line["best"], line["trials"]) == (best["values"], best["trials"])
        assert line["validation"]["mean"] == pytest.approx(min(means))
        tests = [
            json.loads((tmp_path / "out/trials" / i / "trial.json").read_text())["result"]["splits"]["random"]
            for i in best["trials"]
        ]
        assert line["splits"]["random"]["mean"] == pytest.approx(np.mean(tests))


def test_test_scores_have_no_say_and_stay_closed_but_for_the_best(sweep, tmp_path, monkeypatch):
    result = sweep()
    rows = pq.read_table(tmp_path / "out" / "evidence.parquet").to_pylist()
    assert len(rows) == 20
    assert {r["trial"] for r in rows if r["random"] is not None} == {r["trial"] for r in rows if r["chosen"]}
    assert sum(r["chosen"] for r in rows) == 4
    # The same search over trials whose test scores are all turned round tries and chooses the same.
    load = store.load_trial

    def turned(folder, verify=True):
        record = load(folder, verify)
        splits = record["result"]["splits"]
        record["result"]["splits"] = {k: 1 - v for k, v in splits.items()}
        return record

    monkeypatch.setattr(store, "load_trial", turned)
    again = sweep()
    assert again["ran"] == 0
    assert [line["best"] for line in again["settings"]] == [line["best"] for line in result["settings"]]
    assert again["settings"][0]["splits"] != result["settings"][0]["splits"]


@pytest.mark.slow
def test_a_repeated_search_reads_and_one_with_more_tries_begins_with_the_same(sweep):
    first = sweep()
    again = sweep()
    assert (again["ran"], again["read"]) == (0, 20)
    assert values(again) == values(first)
    more = sweep(TEXT.replace("tries = 5", "tries = 7"))
    assert (more["ran"], more["read"]) == (8, 20)
    assert [tried[:5] for tried in values(more)] == values(first)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_what_is_tried_depends_on_the_seed_alone(sweep, sampler):
    text = (
        TEXT.replace("tries = 5", f'tries = 14\nsampler = "{sampler}"')
        .replace("steps = 20", "steps = 2")
        .replace("seeds = 2", "seeds = 1")
    )
    first, second = sweep(text), sweep(text, out="elsewhere")
    assert values(first) == values(second)
    other = sweep(text.replace("tries = 14", "tries = 14\nseed = 1"), out="other")
    assert values(other) != values(first)
    fewer = sweep(text.replace('rule = ["sgd", "adamw"]', 'rule = ["adamw"]'))
    assert values(fewer) == values(first)[1:], "a combination's tries do not depend on the others"
    assert fewer["ran"] == 0


@pytest.mark.slow
def test_an_interrupted_search_goes_on_where_it_was(sweep):
    ended = []

    def stop(total, label, event):
        ended.append(event)
        if sum(e.ended for e in ended) == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(on_event=stop)
    result = sweep(resume=True)
    assert (result["ran"], result["read"]) == (13, 7)
    assert values(result) == values(sweep(out="elsewhere"))


def test_more_is_better_where_it_is(sweep):
    for line in sweep(TEXT.replace("tries = 5", 'tries = 5\nmetric = "held_out_token_accuracy"'))["settings"]:
        assert line["validation"]["mean"] == max(t["validation"] for t in line["tries"])


@pytest.mark.slow
def test_a_try_that_diverges_is_never_the_best(sweep):
    text = TEXT.replace("{ low = 1e-2, high = 1, log = true }", "[0.1, 900000.0]").replace("steps = 20", "steps = 40")
    text = text.replace("tries = 5", "tries = 8")
    line = sweep(text)["settings"][0]
    assert {t["status"] for t in line["tries"]} == {"done", "diverged"}
    assert line["best"]["rule.lr"] == 0.1
    assert all(t["validation"] is None for t in line["tries"] if t["status"] == "diverged")


def test_a_combination_without_a_good_try_says_so(sweep):
    line = sweep(TEXT.replace("{ low = 1e-2, high = 1, log = true }", "[900000.0]").replace("20", "40"))["settings"][0]
    assert (line["best"], line["validation"], line["status"], line["trials"]) == (None, None, "failed", [])


def test_tries_that_cannot_run_take_no_other_with_them(sweep, tmp_path):
    text = TEXT.replace('"rule.decay" = [0.01, 0.1]', "batch = [1, 32]").replace('"adamw"]', '"gaf:base=sgd"]')
    text = text.replace('"rule.lr" = { low = 1e-3, high = 1e-1, log = true }\n', "")
    with pytest.raises(UserError, match=r"could not run: gaf splits each batch .*; the others are in"):
        sweep(text)
    line = json.loads((tmp_path / "out" / "sweep.json").read_text())["settings"][1]
    assert {t["status"] for t in line["tries"]} == {"done", "failed"}
    assert line["best"] == {"batch": 32}


def test_the_same_try_twice_runs_once(sweep):
    text = TEXT.replace("{ low = 0, high = 0.9 }", "[0.0]").replace("{ low = 1e-2, high = 1, log = true }", "[0.1]")
    result = sweep(text)
    assert len(result["settings"][0]["tries"]) == 5
    assert len({i for t in result["settings"][0]["tries"] for i in t["trials"]}) == 2
    assert result["trials"] == 12


def test_a_budget_may_shorten_the_search(sweep):
    result = sweep(TEXT + "[budgets.smoke.search]\ntries = 1\n", budget="smoke")
    assert [len(tried) for tried in values(result)] == [1, 1]


def test_a_dry_run_counts_every_try(sweep, tmp_path):
    plan = sweep(dry_run=True)
    assert (plan["tries"], plan["trials"], plan["complete"]) == (5, 20, None)
    assert plan["seconds"] > 0
    assert not (tmp_path / "out").exists()


def test_without_optuna_the_extra_is_named(sweep, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"search needs the extra hpo: pip install 'crevasse\[hpo\]'"):
        sweep()
    assert not (tmp_path / "out").exists(), "nothing is half written"


def test_the_last_reading_is_the_last_that_was_taken(tmp_path):
    store.write_columns(tmp_path / store.LEDGER, {"held_out_loss": np.array([3.0, np.nan, 1.0, np.nan])})
    assert searching.read_metric(tmp_path, "held_out_loss") == 1.0
