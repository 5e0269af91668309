"""The study on a tiny model: the whole way from the command to the report, with the real loading code."""

import json

from crevasse.cli import main
from crevasse.studies import EVIDENCE, STUDIES, decide, read_evidence


def call(capsys, *words):
    import sys

    sys.argv = ["crevasse", *map(str, words)]
    try:
        main()
    except SystemExit as e:
        out = capsys.readouterr()
        return e.code, out.out, out.err
    raise AssertionError("main always exits")


def test_the_study_runs_on_anyones_model_and_goes_on_where_it_stopped(tiny, tmp_path, capsys):
    name = f"llm-factorial:{tiny()}"
    code, out, err = call(capsys, "study", name, "--budget", "smoke", "--out", tmp_path / "s", "--json", "--quiet")
    assert code == 0, err
    verdict = json.loads(out)
    assert verdict["study"] == name
    assert [a["arm"] for a in verdict["arms"]] == ["direct", "tool"]
    assert verdict["arms"][1]["ceiling"] == {"interpolation": 1.0, "extrapolation": 1.0}
    assert set(verdict["arms"][0]["faults"]) == {"train", "interpolation", "extrapolation"}
    rows = read_evidence(tmp_path / "s" / EVIDENCE)
    assert all(r["memory"] > 0 and r["peak_memory"] > 0 for r in rows)
    again = decide(STUDIES.parse(name), "smoke", rows)
    assert {**again, "seconds": None} == {**verdict, "seconds": None}
    page = (tmp_path / "s" / "index.html").read_text()
    assert "22!" in page
    code, out, err = call(capsys, "study", name, "--budget", "smoke", "--out", tmp_path / "s", "--json", "--quiet")
    assert code == 0
    assert json.loads(out)["arms"] == verdict["arms"]


def test_every_budget_has_its_arms_and_the_full_one_three_seeds(tiny):
    study = STUDIES.parse(f"llm-factorial:{tiny()}")
    minutes, full = study.arms("minutes"), study.arms("full")
    assert {"direct", "trace", "tool", "untrained", "few-shot", "sum-direct", "sum-tool"} <= {a.name for a in minutes}
    assert [a.name for a in minutes] == [a.name for a in full][: len(minutes)]
    assert {a.name for a in full if a.seeds == 3} == {"direct", "trace", "tool"}
    assert "memorises" in study.answer(
        [{"arm": "direct", "finding": "memory", "train": {"mean": 1.0}, "splits": {"interpolation": {"mean": 0.0}}}]
    )


def test_mistakes_get_one_line(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for words, needle in (
        (["study", "llm-factorial:smolm2", "--budget", "smoke"], "smollm2-135m"),
        (["study", f"llm-factorial:{tmp_path / 'empty'}"], "no model folder"),
        (["study", "llm-factoral"], "llm-factorial"),
        (["run", "factorial", "--model", f"pretrained:{tmp_path / 'empty'}"], "no model folder"),
        (["run", "factorial", "--model", "transformer", "--format", "direct:shots=2", "--steps", "0"], "pretrained"),
    ):
        code, out, err = call(capsys, *words, "--out", tmp_path / "o")
        assert (code, out) == (2, "")
        assert len(err.splitlines()) == 1 and needle in err
