"""The command line as a person types it, with typos; the JSON that scripts read; the Python door."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

import crevasse
from crevasse.cli import cli

COMMAND = [sys.executable, "-m", "crevasse.cli"]
SMALL = ["run", "iterated-product", "p=7", "T=1-3", "beyond=4", "--model", "bilinear:width=16,products=32",
         "--steps", "40", "--batch", "32", "--train", "120", "--held-out", "30", "--quiet"]  # fmt: skip


def call(*words, cwd=None, code=0, env=None):
    done = subprocess.run(
        [*COMMAND, *map(str, words)], capture_output=True, text=True, cwd=cwd, env={**os.environ, **(env or {})}
    )
    assert done.returncode == code, (words, done.stdout, done.stderr)
    return done


def refused(*words, cwd=None):
    """One line on stderr, nothing on stdout, exit 2."""
    done = call(*words, cwd=cwd, code=2)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("crevasse: "), done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_help_imports_nothing_heavy():
    code = "import sys; sys.argv=['crevasse','--help']\nfrom crevasse.cli import main\ntry: main()\nexcept SystemExit: pass\nprint(sorted({'torch','numpy','rich','plotly','pyarrow','scipy','duckdb'} & set(sys.modules)))"  # noqa: E501
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "study" in done.stdout
    assert "solve" in done.stdout


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["factorial", "23"], "2.585202e+22"),
        (["factorial", "figures=0", "n=23"], "25852016738884976640000"),
        (["factorial-mod", "n=10", "p=13"], "6"),
        (["iterated-product", "p=13", "x=3,5,7"], "1"),
        (["iterated-product:p=17", "x=3,5,7"], "3"),
        (["rising-product", "p=31", "a=3", "d=-1", "n=3"], "6"),
        (["fibonacci", "50"], "12586269025"),
        (["fibonacci", "m=13", "n=10", "u=0", "v=1"], "3"),
        (["sum", "100"], "5050"),
        (["sum", "p=31", "a=1", "d=1", "n=10"], "24"),
        (["parity", "x=1,0,1,1"], "1"),
        (["cycle", "x=-1,-1,1"], "4"),
        (["affine", "p=11", "x=3", "a=2", "b=5", "n=4"], "2"),
        (["quadratic", "x=3", "c=1", "n=2", "p=11"], "2"),
        (["words", "group=Z60", "x=59,2"], "1"),
        (["modular", "op=div", "a=1", "b=2"], "49"),
        (["addition", "a=95", "b=7"], "102"),
        (["multiplication", "a=12", "b=12"], "144"),
    ],
)
def test_solve_gives_the_exact_answer(words, answer):
    assert crevasse.solve(words[0], words[1:])["answer"] == (int(answer) if answer.isdecimal() else answer)


def test_teach_says_the_rule_what_follows_and_what_to_ask(tmp_path):
    said = call("teach", "1=1", "3=6", "5=120", cwd=tmp_path).stdout
    assert "f(n) = n · f(n-1)" in said and "6 = 720" in said
    lesson = json.loads(call("teach", "1=1", "3=2", "5=5", "--json", cwd=tmp_path).stdout)
    assert set(lesson) == {"examples", "programs", "next", "telling", "sure", "complete", "consolidated"}
    assert lesson["programs"][0]["program"] == "f(0) = 0; f(1) = 1; f(n) = f(n-1) + f(n-2)"
    assert sum(p["share"] for p in lesson["programs"]) == pytest.approx(1)
    assert len(lesson["telling"]["values"]) > 1


def test_teach_guesses_nothing_where_no_program_was_found(tmp_path):
    said = call("teach", "3=9", "4=17", "7=2", "--seconds", "0.01", cwd=tmp_path).stdout
    assert "none that gives these examples was found" in said
    assert (
        json.loads(call("teach", "3=9", "4=17", "7=2", "--seconds", "0.01", "--json", cwd=tmp_path).stdout)["next"]
        == []
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["3=9", "3=10"], "3=9 and 3=10 contradict each other"),
        (["-1=4"], "inputs from 0 to 1000"),
        (["__import__('os')=1"], "is no example"),
        (["1=1"] * 6, "from one to five examples"),
        (["1=1", "2,3=4"], "all of one argument"),
        (["1=2", "--seconds", "nan"], "--seconds must be above 0"),
    ],
)
def test_teach_refuses_bad_examples_in_one_line(words, said):
    assert said in refused("teach", *words)


def test_solve_prints_answer_trace_and_json():
    assert call("solve", "factorial", "23").stdout == "2.585202e+22\n"
    assert call("solve", "factorial", "5", "--format", "trace").stdout.split() == ["5", "20", "60", "120", "120", "120"]
    solved = json.loads(call("solve", "factorial-mod", "n=10", "p=13", "--json").stdout)
    assert set(solved) == {"task", "input", "answer", "trace"}
    assert solved["input"] == {"n": 10, "p": 13}
    assert solved["answer"] == 6


@pytest.mark.parametrize(
    ("words", "needles"),
    [
        (["studdy"], ["'study'", "compare"]),
        (["study", "factoral"], ["'factorial'"]),
        (["study", "factorial", "--budget", "minute"], ["'minutes'", "smoke", "full"]),
        (["study", "factorial", "--budgt", "smoke"], ["--budget"]),
        (["run", "iterated-prodct"], ["'iterated-product'", "rising-product"]),
        (["run", "iterated-product", "q=13"], ["unknown option", "'q'", "gap"]),
        (["run", "iterated-product", "13"], ["option=value"]),
        (["run", "iterated-product", "p=12"], ["prime", "12", "13"]),
        (["run", "iterated-product", "T=six"], ["six"]),
        (["run", "iterated-product", "T=6", "beyond=3"], ["3"]),
        (["run", "iterated-product", "T=500"], ["500", "200"]),
        (["run", "factorial-mod", "n=70", "gap=", "beyond="], ["70", "61"]),
        (["run", "modular", "p=7", "--train", "1000"], ["1000", "49"]),
        (["run", "factorial", "gap=", "beyond="], ["held-out", "empty"]),
        (["run", "iterated-product", "--format", "traces"], ["'trace'", "direct"]),
        (["run", "iterated-product", "--model", "transfomer"], ["'transformer'"]),
        (["run", "iterated-product", "--model", "transformer:width=10,heads=4"], ["10", "4"]),
        (["run", "iterated-product", "--model", "transformer:wdth=10"], ["'width'"]),
        (["run", "iterated-product", "--rule", "adam"], ["'adamw'", "gaf-sign"]),
        (["run", "iterated-product", "--rule", "adamw:lr=fast"], ["fast", "number"]),
        (["run", "iterated-product", "--steps", "-1"], ["steps", "-1"]),
        (["run", "iterated-product", "--steps", "many"], ["many"]),
        (["run", "iterated-product", "--labels", "noisy=lots"], ["lots", "share"]),
        (["run", "iterated-product", "--labels", "nosy"], ["noisy"]),
        (["run", "iterated-product", "--seeds", "0"], ["seeds", "0"]),
        (["run", "pairs:nowhere.csv"], ["nowhere.csv", "no such file"]),
        (["run", "modular", "--format", "trace"], ["modular", "trace"]),
        (["solve", "factorial", "0"], ["n=0", "1 to"]),
        (["solve", "factorial", "x"], ["whole number", "'x'"]),
        (["solve", "factorial"], ["Missing"]),
        (["solve", "factorial-mod", "10"], ["n=", "p="]),
        (["solve", "factorial-mod", "n=13", "p=13"], ["not defined"]),
        (["solve", "iterated-product", "x=3,13"], ["13", "1 to 12"]),
        (["solve", "modular", "a=1", "b=2", "--format", "trace"], ["no trace"]),
        (["solve", "factorial", "5", "--format", "tool"], ["trace", "direct"]),
        (["show", "abc"], ["abc"]),
        (["compare", "abc", "def"], ["abc"]),
        (["report", "nowhere"], ["nowhere"]),
        (["ls", "nowhere"], ["nowhere"]),
        (["tasks", "factoral"], ["'factorial'"]),
    ],
)
def test_a_mistake_gets_one_line_that_says_what_is_allowed_and_exit_2(tmp_path, words, needles, capsys, monkeypatch):
    from crevasse.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["crevasse", *words])
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capsys.readouterr()
    assert end.value.code == 2
    assert out == ""
    assert err.startswith("crevasse: ") and err.count("\n") == 1, err
    for needle in needles:
        assert needle in err
    assert not list(tmp_path.iterdir()), "nothing is half written"


def test_a_mistake_looks_the_same_from_outside(tmp_path):
    assert "did you mean 'factorial'" in refused("study", "factoral", cwd=tmp_path)
    file = tmp_path / "p.csv"
    file.write_text('problem,answer\n1,2\n"3,4\n')
    assert "line" in refused("run", f"pairs:{file}", cwd=tmp_path)


def test_no_command_prints_the_help_and_exits_2():
    assert "Usage" in call(code=2).stderr


RUN_KEYS = {"trial", "status", "train", "splits", "lockstep", "s_max", "steps", "passes", "samples", "seconds"}


def test_run_ls_show_compare_and_the_python_door_tell_the_same(tmp_path):
    first = call(*SMALL, "--out", tmp_path, "--json")
    result = json.loads(first.stdout)
    assert set(result) >= RUN_KEYS
    assert first.stderr == ""
    assert first.stdout.count("\n") == 1
    assert result["status"] == "done"
    assert set(result["splits"]) == {"random", "extrapolation"}

    door = crevasse.run(
        "iterated-product:p=7,T=1-3,beyond=4", model="bilinear:width=16,products=32", out=tmp_path,
        steps=40, batch=32, train=120, held_out=30,
    )  # fmt: skip
    assert door == result

    other = json.loads(call(*SMALL, "--rule", "sgd", "--out", tmp_path, "--json").stdout)
    listed = json.loads(call("ls", tmp_path, "--json").stdout)["trials"]
    assert {t["id"] for t in listed} == {result["trial"], other["trial"]}
    shown = json.loads(call("show", result["trial"][:6], "--out", tmp_path, "--json").stdout)
    assert shown["result"]["train"] == result["train"]
    compared = json.loads(call("compare", result["trial"], other["trial"], "--out", tmp_path, "--json").stdout)
    assert compared["differences"]["rule.name"] == ["adamw", "sgd"]
    for words in (["ls", tmp_path], ["show", result["trial"], "--out", tmp_path],
                  ["compare", result["trial"], other["trial"], "--out", tmp_path]):  # fmt: skip
        assert result["trial"] in call(*words).stdout


def test_several_seeds_give_means_with_intervals(tmp_path):
    result = json.loads(call(*SMALL, "--seeds", "3", "--out", tmp_path, "--json").stdout)
    assert len(result["trial"]) == 3
    assert set(result["train"]) == {"mean", "low", "high", "n"}
    assert result["train"]["low"] <= result["train"]["mean"] <= result["train"]["high"]
    assert result["train"]["n"] == 3


def test_pairs_of_ones_own_are_a_task_like_any_other(tmp_path):
    file = tmp_path / "my.csv"
    file.write_text("problem,answer\n" + "".join(f"{a}+{b},{a + b}\n" for a in range(12) for b in range(12)))
    done = call("run", f"pairs:{file}", "--steps", 20, "--out", tmp_path / "o", "--json", "--quiet")
    result = json.loads(done.stdout)
    assert set(result["splits"]) == {"random"}
    shown = call("show", result["trial"], "--out", tmp_path / "o").stdout
    assert "not known" in shown, "the symmetries are unknown, and said so"
    assert call("solve", f"pairs:{file}", "3+4").stdout == "7\n"


def test_lists_have_a_line_each_and_options_with_a_name():
    def said(*words):  # eleven processes would take long
        return CliRunner().invoke(cli, words, catch_exceptions=False).output

    for name in ("tasks", "formats", "models", "rules", "studies"):
        assert len(said(name).splitlines()) == len(json.loads(said(name, "--json"))[name]) > 2
    assert "heads=4" in said("models", "transformer")


def test_interrupted_it_exits_130_and_the_same_command_goes_on(tmp_path):
    words = [*COMMAND, *SMALL, "--out", str(tmp_path), "--json"]
    words[words.index("--steps") + 1] = "3000"
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("trials/*/trial.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "goes on" in err
    assert "Traceback" not in err
    assert list(tmp_path.glob("trials/*/checkpoint.safetensors"))
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["steps"] == 3000


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    done = subprocess.run(f"{' '.join(COMMAND)} tasks | head -1", shell=True, capture_output=True, text=True)
    assert done.stdout.startswith("factorial")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_smoke_study_ends_with_evidence_verdict_and_report(tmp_path):
    out = tmp_path / "s"
    done = call("study", "factorial", "--budget", "smoke", "--out", out, "--json", "--quiet")
    verdict = json.loads(done.stdout)
    assert verdict == json.loads((out / "verdict.json").read_text())
    assert set(verdict) >= {"study", "question", "answer", "budget", "seconds", "arms"}
    arms = {a["arm"]: a for a in verdict["arms"]}
    for a in arms.values():
        assert set(a) >= {"arm", "task", "format", "model", "rule", "seeds", "chance", "ceiling", "train", "splits",
                          "lockstep", "s_max"}  # fmt: skip
        assert set(a["train"]) == {"mean", "low", "high", "n"}
    assert arms["product-trace"]["finding"] == "rule"
    assert arms["product-direct"]["finding"] == arms["thesis-direct"]["finding"] == "memory"
    assert "smoke" in call("study", "factorial", "--budget", "smoke", "--out", out, "--quiet").stdout
    html = (out / "index.html").read_bytes()
    (out / "index.html").unlink()
    call("report", out)
    assert (out / "index.html").read_bytes() == html, "the report is made from evidence and verdict alone"
    assert Path(out / "evidence.parquet").stat().st_size < 3_000_000
