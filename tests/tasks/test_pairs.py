"""The user's own problems: what a file may hold, what is kept verbatim, what is refused and at which line."""

import csv
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crevasse.errors import UserError
from crevasse.spec import describe, to_json
from crevasse.tasks import TASKS, Splits, make_splits, parse_task

Rows = list[dict[str, str]]
#: Text that somebody's spreadsheet or browser would run.
HOSTILE = [
    "=cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd|'/C calc'!A0",
    "+1+1",
    "-2+3",
    "<script>alert('x')</script>",
    "{{ 7*7 }}",
    "${jndi:ldap://x}",
    "'; DROP TABLE trials; --",
    "../../etc/passwd",
    "%s %d %n {0}",
    "a,b;c\td",
    'say "yes"',
    "two\nlines",
    "two\r\nlines",
    " spaces around ",
    "Ünïcödé ✓ 数 𝟙",
    "\u202eright to left",
    "nan",
    "None",
    "-1",
    "007",
    "1e3",
]


def write_csv(path: Path, rows: Rows) -> Path:
    with path.open("w", encoding="utf-8", newline="") as f:
        writer = csv.DictWriter(f, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


WRITERS = {"csv": write_csv, "jsonl": write_jsonl, "ndjson": write_jsonl}


def pairs(path: Path):
    return parse_task(f"pairs:{path}")


def read_back(task) -> Rows:
    """All that the task knows of its file, row by row."""
    x = task.every(task.train_sizes)
    solution = task.solve(x)
    columns = {"problem": task.texts(x).tolist(), "answer": solution.answers[:, 0].tolist()}
    if solution.states is not None:
        columns["trace"] = solution.states[:, 0, 0].tolist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def sums(count: int) -> Rows:
    return [{"problem": f"{i}+{i % 7}", "answer": str(i + i % 7)} for i in range(count)]


def texts(task, splits: Splits) -> dict[str, list[str]]:
    sides = {"train": splits.train, "steer": splits.steer, "validation": splits.validation, **splits.tests}
    return {name: task.texts(p.x).tolist() for name, p in sides.items()}


# --- what is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", WRITERS)
def test_problems_and_answers_are_read_in_order(tmp_path, kind):
    rows = sums(50)
    assert read_back(pairs(WRITERS[kind](tmp_path / f"f.{kind}", rows))) == rows


@pytest.mark.parametrize("kind", WRITERS)
def test_traces_are_read_and_may_be_empty(tmp_path, kind):
    rows = [{**row, "trace": "" if i % 3 else f"first\nthen {i}"} for i, row in enumerate(sums(20))]
    assert read_back(pairs(WRITERS[kind](tmp_path / f"f.{kind}", rows))) == rows


@pytest.mark.parametrize("kind", WRITERS)
def test_hostile_text_is_kept_verbatim(tmp_path, kind):
    rows = [{"problem": p, "answer": a, "trace": p + a} for p, a in zip(HOSTILE, reversed(HOSTILE), strict=True)]
    assert read_back(pairs(WRITERS[kind](tmp_path / f"f.{kind}", rows))) == rows


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {
                "problem": st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip),
                "answer": st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip),
                "trace": st.text(st.characters(codec="utf-8")),
            }
        ),
        min_size=1,
        max_size=5,
    ),
    kind=st.sampled_from(["csv", "jsonl"]),
)
def test_any_text_makes_the_round_trip(tmp_path_factory, rows, kind):
    path = tmp_path_factory.mktemp("any") / f"f.{kind}"
    assert read_back(pairs(WRITERS[kind](path, rows))) == rows


def test_quoted_commas_quotes_and_newlines_are_read(tmp_path):
    path = tmp_path / "f.csv"
    path.write_text('problem,answer\n"1,000 + 1","1,001"\n"say ""hi""","hi"\n"two\nlines","2"\n')
    assert read_back(pairs(path)) == [
        {"problem": "1,000 + 1", "answer": "1,001"},
        {"problem": 'say "hi"', "answer": "hi"},
        {"problem": "two\nlines", "answer": "2"},
    ]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path, kind):
    path = WRITERS[kind](tmp_path / f"f.{kind}", sums(3))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_back(pairs(path)) == sums(3)


def test_column_order_case_line_ends_and_blank_lines_do_not_matter(tmp_path):
    path = tmp_path / "f.CSV"
    path.write_bytes(b"Answer, PROBLEM\r\n2,1+1\r\n\r\n4,2+2\r\n")
    assert read_back(pairs(path)) == [{"problem": "1+1", "answer": "2"}, {"problem": "2+2", "answer": "4"}]


def test_a_file_may_begin_with_a_blank_line(tmp_path):
    path = tmp_path / "f.csv"
    path.write_text("\nproblem,answer\n1+1,2\n")
    assert read_back(pairs(path)) == [{"problem": "1+1", "answer": "2"}]


def test_numbers_in_json_are_kept_as_they_are_written(tmp_path):
    path = tmp_path / "f.jsonl"
    written = ["3628800", "3.6288e+06", "1.10", "-0", "1" + "0" * 5000]
    path.write_text("".join(f'{{"problem": "p{i}", "answer": {n}}}\n' for i, n in enumerate(written)))
    assert [row["answer"] for row in read_back(pairs(path))] == written


def test_a_problem_is_found_by_its_text(tmp_path):
    task = pairs(write_csv(tmp_path / "f.csv", sums(20)))
    row = task.find("9+2")
    assert task.texts(row).tolist() == ["9+2"]
    assert task.solve(row).answers.tolist() == [["11"]]
    with pytest.raises(UserError, match=r"9\+3.*f\.csv"):
        task.find("9+3")


# --- splits that the task makes -------------------------------------------------------------------


def test_splits_are_made_where_the_file_names_none(tmp_path):
    task = pairs(write_csv(tmp_path / "f.csv", sums(200)))
    splits = make_splits(task, 100, steer=10)
    assert (len(splits.train), len(splits.steer)) == (90, 10)
    assert (len(splits.validation), len(splits.tests["random"])) == (20, 20)
    assert list(splits.tests) == ["random"]
    for side in (splits.train, splits.validation, splits.tests["random"]):
        assert side.solution.answers.tolist() == [[str(eval(t))] for t in task.texts(side.x)]
    counts = Counter(t for side in texts(task, splits).values() for t in side)
    assert max(counts.values()) == 1


def test_the_splits_of_a_file_are_the_same_each_time_and_others_for_another_seed(tmp_path):
    task = pairs(write_csv(tmp_path / "f.csv", sums(200)))
    again = pairs(write_csv(tmp_path / "copy.csv", sums(200)))
    assert texts(task, make_splits(task, seed=1)) == texts(task, make_splits(task, seed=1))
    assert texts(task, make_splits(task, seed=1)) != texts(task, make_splits(task, seed=2))
    assert task.digest == again.digest


@pytest.mark.parametrize("seed", range(5))
def test_a_repeated_problem_never_crosses_sides(tmp_path, seed):
    rows = [{"problem": f"{'  ' * (i % 2)}{i % 40}?{' ' * (i % 3)}", "answer": str(i)} for i in range(400)]
    task = pairs(write_csv(tmp_path / "f.csv", rows))
    found = {name: {t.strip() for t in side} for name, side in texts(task, make_splits(task, seed=seed)).items()}
    assert all(found[name] for name in ("train", "validation", "random"))
    assert not found["train"] & found["validation"]
    assert not found["train"] & found["random"]
    assert not found["validation"] & found["random"]


def test_a_repeated_problem_does_not_stand_in_steer_and_in_the_gradient(tmp_path):
    rows = [{"problem": f"{i % 40}?", "answer": str(i)} for i in range(400)]
    task = pairs(write_csv(tmp_path / "f.csv", rows))
    found = texts(task, make_splits(task, 200, steer=50))
    assert not set(found["train"]) & set(found["steer"])


@pytest.mark.parametrize("labels", ["random", "noisy"])
def test_labels_of_a_file_can_be_shuffled_and_spoilt(tmp_path, labels):
    task = pairs(write_csv(tmp_path / "f.csv", sums(200)))
    true, spoilt = (make_splits(task, labels=kind, noise=0.25) for kind in ("true", labels))
    assert texts(task, true) == texts(task, spoilt)
    wrong = (true.train.solution.answers != spoilt.train.solution.answers).sum()
    assert wrong == round(0.25 * 160) if labels == "noisy" else wrong > 100


def test_noise_is_exact_even_where_nearly_all_answers_agree(tmp_path):
    rows = [{"problem": f"{i}", "answer": "yes" if i % 100 == 0 else "no"} for i in range(500)]
    task = pairs(write_csv(tmp_path / "f.csv", rows))
    train = make_splits(task, labels="noisy", noise=1.0).train
    assert (train.solution.answers != task.solve(train.x).answers).all()


@pytest.mark.parametrize("rows", [1, 2])
def test_a_file_too_small_to_split_is_refused(tmp_path, rows):
    task = pairs(write_csv(tmp_path / "f.csv", sums(rows)))
    with pytest.raises(UserError, match=f"would be empty: {rows} problems"):
        make_splits(task)


# --- splits that the file names -------------------------------------------------------------------

NAMES = ["train"] * 30 + ["validation"] * 5 + ["test"] * 4 + ["interpolation"] * 3 + ["extrapolation"] * 2


def with_splits(names: list[str]) -> Rows:
    return [{**row, "split": name} for row, name in zip(sums(len(names)), names, strict=True)]


@pytest.mark.parametrize("kind", WRITERS)
def test_the_files_own_splits_are_kept_exactly(tmp_path, kind):
    rows = with_splits(NAMES)
    task = pairs(WRITERS[kind](tmp_path / f"f.{kind}", rows))
    found = texts(task, make_splits(task))
    for name, called in [
        ("train", "train"),
        ("validation", "validation"),
        ("random", "test"),
        ("interpolation", "interpolation"),
        ("extrapolation", "extrapolation"),
    ]:
        assert sorted(found[name]) == sorted(r["problem"] for r in rows if r["split"] == called)


def test_split_names_may_be_written_in_any_case_and_test_is_random(tmp_path):
    rows = with_splits([" Train "] * 30 + ["VALIDATION"] * 2 + ["Random"] * 3 + ["test"] * 2)
    splits = make_splits(pairs(write_csv(tmp_path / "f.csv", rows)))
    assert [len(p) for p in (splits.train, splits.validation, splits.tests["random"])] == [30, 2, 5]


def test_validation_is_taken_from_training_where_the_file_names_none_and_said_so(tmp_path):
    rows = with_splits(["train"] * 100 + ["test"] * 10)
    task = pairs(write_csv(tmp_path / "f.csv", rows))
    splits = make_splits(task)
    found = texts(task, splits)
    assert len(found["validation"]) == 10
    assert set(found["train"]) | set(found["validation"]) == {r["problem"] for r in rows[:100]}
    assert not set(found["train"]) & set(found["validation"])
    assert any("validation" in note and "10" in note for note in splits.notes)


def test_validation_that_is_taken_from_training_shares_no_problem_with_it(tmp_path):
    rows = [{"problem": f"{i % 30}?", "answer": str(i), "split": "train"} for i in range(60)]
    rows.append({"problem": "t?", "answer": "1", "split": "test"})
    task = pairs(write_csv(tmp_path / "f.csv", rows))
    found = texts(task, make_splits(task))
    assert not set(found["train"]) & set(found["validation"])


def test_a_training_set_of_declared_splits_has_the_size_that_was_asked_for(tmp_path):
    task = pairs(write_csv(tmp_path / "f.csv", with_splits(["train"] * 100 + ["test"] * 10)))
    splits = make_splits(task, 50, steer=7)
    assert (len(splits.train), len(splits.steer)) == (43, 7)


def test_held_out_splits_of_a_file_are_cut_to_what_was_asked_for(tmp_path):
    names = ["train"] * 30 + ["validation"] * 30 + ["test"] * 30
    splits = make_splits(pairs(write_csv(tmp_path / "f.csv", with_splits(names))), held_out=12)
    assert [len(splits.validation), len(splits.tests["random"])] == [12, 12]


def test_a_problem_in_two_splits_is_refused_and_listed_with_both_lines(tmp_path):
    rows = with_splits(["train"] * 20 + ["test"] * 5)
    rows[22]["problem"] = rows[3]["problem"] + "  "  # the same but for spaces: line 24 and line 5
    with pytest.raises(UserError) as error:
        make_splits(pairs(write_csv(tmp_path / "f.csv", rows)))
    message = str(error.value)
    assert "3+3" in message
    assert "lines 5 and 24" in message
    assert "\n" not in message


def test_many_problems_in_two_splits_are_counted(tmp_path):
    rows = with_splits(["train"] * 20 + ["test"] * 20)
    for i in range(8):
        rows[20 + i]["problem"] = rows[i]["problem"]
    with pytest.raises(UserError, match="and 3 more"):
        make_splits(pairs(write_csv(tmp_path / "f.csv", rows)))


@pytest.mark.parametrize(
    ("names", "arguments", "said"),
    [
        (["train"] * 30, {}, "at least one test split"),
        (["train"] * 30 + ["validation"] * 5, {}, "at least one test split"),
        (["test"] * 30, {}, "train"),
        (["train"] * 10 + ["test"] * 5, {}, "too few training problems"),
        (["train"] * 30 + ["test"] * 5, {"train": 31}, "31.*30"),
        (["train"] * 30 + ["validation"] * 2 + ["test"] * 5, {"steer": 30}, "30"),
    ],
)
def test_declared_splits_that_hold_nothing_out_are_refused(tmp_path, names, arguments, said):
    task = pairs(write_csv(tmp_path / "f.csv", with_splits(names)))
    with pytest.raises(UserError, match=said):
        make_splits(task, **arguments)


# --- what is refused ------------------------------------------------------------------------------


def refusal(path: Path) -> str:
    """The message with which reading a file is refused: one line that names the file."""
    with pytest.raises(UserError) as error:
        _ = pairs(path).table
    assert "\n" not in str(error.value)
    assert path.name in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('problem,answer\n1,2\n3,"4"x\n5,6\n', ["line 3"]),
        ("problem,answer\n1,2\n3\n5,6\n", ["line 3", "1 fields", "2 columns"]),
        ("problem,answer\n1,2\n3,4,5\n", ["line 3", "3 fields"]),
        ("problem\n1\n", ["line 1", "one column", "answer"]),
        ("problem;answer\n1;2\n", ["line 1", "one column"]),
        ("problem,answer,hint\n1,2,3\n", ["line 1", "'hint'", "trace", "split"]),
        ("problem,answer,answer\n1,2,3\n", ["line 1", "'answer'", "repeated"]),
        ("question,reply\n1,2\n", ["line 1", "question, reply", "problem, answer"]),
        ("problem,trace\n1,2\n", ["line 1", "problem, trace", "answer"]),
        ("", ["empty"]),
        ("problem,answer\n", ["empty", "at least one row"]),
        (
            "problem,answer,split\n1,2,train\n3,4,dev\n",
            ["line 3", "'dev'", "train", "validation", "extrapolation"],
        ),
        ("problem,answer,split\n1,2,\n", ["line 2", "''", "train"]),
        ("problem,answer\n1,2\n3,\n", ["line 3", "answer is empty"]),
        ("problem,answer\n1,2\n3,   \n", ["line 3", "answer is empty"]),
        ("problem,answer\n,2\n", ["line 2", "problem is empty"]),
        ('problem,answer\n"1\n1",2\n3\n', ["line 4", "1 fields"]),
    ],
)
def test_a_csv_file_that_is_wrong_is_refused_with_line_and_reason(tmp_path, text, said):
    path = tmp_path / "f.csv"
    path.write_text(text)
    message = refusal(path)
    assert all(part in message for part in said), message


@pytest.mark.parametrize("rows_after", [1, 50, 100_000])
def test_an_unbalanced_quote_is_reported_where_it_opens(tmp_path, rows_after):
    path = tmp_path / "f.csv"
    path.write_text('problem,answer\n1,2\n"3,4\n' + "5,6\n" * rows_after)
    assert re.search(r"\bline 3\b", refusal(path))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"problem": "1", "answer": "2"}\n\n{"problem": "3", "answer": \n', ["line 3", "JSON"]),
        ('{"problem": "1", "answer": "2"}\n[1, 2]\n', ["line 2", "object"]),
        ('"text"\n', ["line 1", "object"]),
        ("null\n", ["line 1", "object"]),
        ('{"problem": "1"}\n', ["line 1", "answer"]),
        ('{"problem": "1", "answer": {"is": 2}}\n', ["line 1", "answer", "text or a number"]),
        ('{"problem": ["1"], "answer": "2"}\n', ["line 1", "problem", "text or a number"]),
        ('{"problem": "1", "answer": null}\n', ["line 1", "answer", "text or a number"]),
        ('{"problem": "1", "answer": true}\n', ["line 1", "answer", "text or a number"]),
        ('{"problem": "1", "answer": "2", "hint": "3"}\n', ["line 1", "'hint'", "trace"]),
        (
            '{"problem": "1", "answer": "2"}\n{"problem": "1", "answer": "2", "trace": "3"}\n',
            ["line 2", "trace"],
        ),
        (
            '{"problem": "1", "answer": "2", "trace": "3"}\n{"problem": "1", "answer": "2"}\n',
            ["line 2", "trace"],
        ),
        ('{"problem": "1", "answer": "2", "split": "dev"}\n', ["line 1", "'dev'", "validation"]),
        ('{"problem": "1", "answer": ""}\n', ["line 1", "answer is empty"]),
        ('{"problem": "\\ud800", "answer": "1"}\n', ["line 1"]),
        ("[" * 100_000 + "\n", ["line 1", "JSON"]),
        ("", ["empty"]),
        ("\n\n", ["empty"]),
    ],
    ids=lambda v: v[:40] if isinstance(v, str) else "",
)
def test_a_jsonl_file_that_is_wrong_is_refused_with_line_and_reason(tmp_path, text, said):
    path = tmp_path / "f.jsonl"
    path.write_text(text)
    message = refusal(path)
    assert all(part in message for part in said), message


@pytest.mark.parametrize("lines_before", [3, 20_000])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_text_in_another_encoding_is_refused_at_its_line(tmp_path, kind, lines_before):
    path = tmp_path / f"f.{kind}"
    if kind == "csv":
        lines = [b"problem,answer", *(b"%d,2" % i for i in range(lines_before - 1)), b"caf\xe9,1"]
    else:
        line = b'{"problem": "%s", "answer": 1}'
        lines = [*(line % str(i).encode() for i in range(lines_before)), line % b"caf\xe9"]
    path.write_bytes(b"\n".join(lines) + b"\n")
    message = refusal(path)
    assert "UTF-8" in message
    assert re.search(rf"\bline {lines_before + 1}\b", message), message


def test_a_file_that_is_not_there_or_no_file_is_refused(tmp_path):
    for path, said in [(tmp_path / "none.csv", "no such file"), (tmp_path, "folder")]:
        with pytest.raises(UserError, match=said):
            pairs(path)
    with pytest.raises(UserError, match="needs file"):
        parse_task("pairs")


def test_a_file_name_that_no_file_can_have_is_refused(tmp_path):
    with pytest.raises(UserError):
        pairs(tmp_path / ("a" * 300))


def test_a_file_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    path = write_csv(tmp_path / "f.csv", sums(3))

    def locked(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", locked)
    monkeypatch.setattr("builtins.open", locked)
    with pytest.raises(UserError, match="cannot be read"):
        pairs(path)


# --- the same file --------------------------------------------------------------------------------


def test_a_file_that_changed_since_is_refused(tmp_path):
    path = write_csv(tmp_path / "f.csv", sums(30))
    kept = to_json(pairs(path))
    assert TASKS.load(kept) == pairs(path)
    write_csv(path, sums(31))
    with pytest.raises(UserError, match=r"f\.csv has changed"):
        TASKS.load(kept)
    assert pairs(path).digest != kept["digest"]


def test_a_file_that_changes_before_it_is_read_is_refused(tmp_path):
    path = write_csv(tmp_path / "f.csv", sums(30))
    task = pairs(path)
    write_csv(path, sums(31))
    with pytest.raises(UserError, match="changed"):
        make_splits(task)


@pytest.mark.parametrize("name", ["f.csv", "with space.csv", "a,b.csv", "p=13.csv", "x:y.csv"])
def test_a_file_task_is_described_by_text_that_gives_it_back(tmp_path, name):
    task = pairs(write_csv(tmp_path / name, sums(5)))
    assert parse_task(describe(task)) == task


def test_two_files_with_the_same_rows_are_read_alike_and_apart(tmp_path):
    one = pairs(write_csv(tmp_path / "one.csv", sums(30)))
    other = pairs(write_jsonl(tmp_path / "other.jsonl", sums(30)))
    assert read_back(one) == read_back(other)
    assert one != other


# --- size -----------------------------------------------------------------------------------------


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )


@pytest.mark.slow
def test_a_million_rows_are_read_and_split_in_bounded_memory(tmp_path):
    path = tmp_path / "f.csv"
    with path.open("w") as f:
        f.write("problem,answer\n")
        f.writelines(f"{i} + {i % 977},{i + i % 977}\n" for i in range(1_000_000))
    script = (
        "import json, resource, sys; from crevasse.tasks import make_splits, parse_task\n"
        "t = parse_task('pairs:' + sys.argv[1]); s = make_splits(t, 700_000, held_out=5000)\n"
        "a, b = map(int, t.texts(s.train.x[-1:])[0].split(' + '))\n"
        "print(json.dumps([len(t.table.problems), len(s.train), len(s.validation), len(s.tests['random']),"
        " str(a + b) == s.train.solution.answers[-1, 0],"
        " resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))"
    )
    *found, kilobytes = json.loads(run(script, path).stdout)
    assert found == [1_000_000, 700_000, 5000, 5000, True]
    assert kilobytes < 1.5 * 2**20


def test_one_long_answer_does_not_make_every_other_answer_long(tmp_path):
    """A table of equally wide texts would take 30,000 times 200,000 characters: 24 GB."""
    rows = [*sums(30_000), {"problem": "long", "answer": "y" * 200_000}]
    path = write_jsonl(tmp_path / "f.jsonl", rows)
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30,) * 2)\n"
        "from crevasse.tasks import make_splits, parse_task\n"
        "from crevasse.tasks.baselines import non_learner_scores\n"
        "t = parse_task('pairs:' + sys.argv[1]); s = make_splits(t, 20_000, labels='noisy', noise=0.01)\n"
        "print(non_learner_scores(s.train, s.validation, limit=5)['lookup'] < 1)"
    )
    assert run(script, path).stdout.strip() == "True"


def test_columns_of_numbers_have_the_shapes_of_every_task(tmp_path):
    task = pairs(write_csv(tmp_path / "f.csv", [{**r, "trace": "t"} for r in sums(9)]))
    x = task.every(task.train_sizes)
    solution = task.solve(x)
    assert x.shape == solution.answers.shape == (9, 1)
    assert solution.states.shape == (9, 1, 1)
    assert task.size(x).tolist() == [1] * 9
    assert np.issubdtype(x.dtype, np.integer)
