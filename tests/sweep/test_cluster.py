"""The Ray engine on a real cluster of two nodes: what it gives, and that it gives it whatever dies."""

import contextlib
import logging
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from crevasse import store
from crevasse.errors import UserError
from crevasse.sweep import Job, cluster, make_plan, run_all
from crevasse.sweep.cluster import RayEngine
from crevasse.trial import run_trial

ray = pytest.importorskip("ray")
psutil = pytest.importorskip("psutil")
pytestmark = pytest.mark.slow

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
FILES = {store.TRIAL, store.LEDGER, store.WEIGHTS, store.CLOCK}


@pytest.fixture(scope="module")
def nodes():
    """A cluster of two nodes with one core each."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        found = Cluster(initialize_head=True, head_node_args=NODE)
        found.add_node(**NODE)
        yield found
        found.shutdown()


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """A root in which trials are run without Ray; the same trial is run once for all tests."""
    return tmp_path_factory.mktemp("local")


@pytest.fixture
def configs(small):
    return [small(form="trace", steps=400, seed=seed) for seed in range(4)]


def check_equal(configs, root, local):
    """Every trial is there, and bitwise what one process without Ray gives; seconds alone may differ."""
    run_all(configs, local, workers=1, plan=plan(configs))
    for config in configs:
        ours, theirs = root / "trials" / config.id, local / "trials" / config.id
        assert {p.name for p in ours.iterdir()} - {".lock"} == FILES
        for name in (store.LEDGER, store.WEIGHTS):
            assert (ours / name).read_bytes() == (theirs / name).read_bytes()
        first, second = store.load_trial(ours), store.load_trial(theirs)
        for record in (first, second):
            record.pop("checksum", None)  # of all this, seconds included; load_trial has verified it
            record["files"].pop(store.CLOCK)
            record["result"] |= {"seconds": 0, "train_seconds": 0}
        assert first == second


def workers(nodes):
    """The processes of the cluster that run a trial."""
    raylets = [psutil.Process(node.all_processes["raylet"][0].process.pid) for node in nodes.list_all_nodes()]
    found = []
    for process in (p for raylet in raylets for p in raylet.children(recursive=True)):
        with contextlib.suppress(psutil.Error):  # it has ended
            found.extend([process] if process.cmdline()[:1] == ["ray::work"] else [])
    return found


def plan(configs, *jobs):
    """These jobs; without any, each trial by itself."""
    found = make_plan(configs, Path("nowhere"))
    return replace(found, jobs=tuple(Job(job) for job in jobs or [(i,) for i in range(len(configs))]))


class Heard:
    """Events, and something to do once at a moment in the middle of the sweep."""

    def __init__(self, moment=lambda heard: False, act=lambda: None):
        self.events, self.moment, self.act, self.acted = [], moment, act, False

    def __call__(self, event):
        self.events.append(event)
        if not self.acted and self.moment(self):
            self.acted = True
            self.act()

    def steps(self, number):
        return [e.progress.step for e in self.events if e.number == number and e.progress is not None]

    def ends(self):
        return sorted(e.number for e in self.events if e.ended)


def in_the_middle(heard):
    """Both nodes are at work: two trials have made steps and not ended, one of them is well under way."""
    running = {e.number for e in heard.events} - set(heard.ends())
    steps = [heard.steps(number) for number in running]
    return len(steps) == 2 and all(s and s[-1] > 0 for s in steps) and any(s[-1] >= 50 for s in steps)


def test_equal_to_the_local_engine(nodes, configs, local, tmp_path, capfd):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT), os.getcwd()
    heard = Heard()
    records = run_all(configs, tmp_path, engine=RayEngine(nodes.address), on_event=heard, plan=plan(configs))
    assert [r["id"] for r in records] == [c.id for c in configs]
    assert heard.ends() == [0, 1, 2, 3]
    check_equal(configs, tmp_path, local)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT), os.getcwd()) == before
    assert not ray.is_initialized()
    assert capfd.readouterr() == ("", "")


DRIVER = """
import pickle, sys
from dataclasses import replace
from pathlib import Path
from crevasse.sweep import Job, make_plan, run_all
from crevasse.sweep.cluster import RayEngine

configs = pickle.loads(Path(sys.argv[1]).read_bytes())
say = lambda event: print(event.number, flush=True) if event.record else None
plan = replace(make_plan(configs, Path("nowhere")), jobs=tuple(Job((i,)) for i in range(len(configs))))
run_all(configs, Path(sys.argv[2]), engine=RayEngine(sys.argv[3]), on_event=say, plan=plan)
"""


def interrupt():
    raise KeyboardInterrupt


@pytest.fixture(scope="class")
def joined(nodes):
    """A connection that the engine finds and uses, which saves the start of a worker for each test."""
    with cluster._joined(nodes.address, 1):
        yield


@pytest.mark.usefixtures("joined")
class TestJoined:
    def test_a_stack_is_the_same_here_and_there(self, nodes, configs, tmp_path):
        stack = plan(configs, (0, 1, 2, 3))
        run_all(configs, tmp_path / "local", workers=1, plan=stack)
        run_all(configs, tmp_path / "ray", engine=RayEngine(nodes.address), plan=stack)
        check_equal(configs, tmp_path / "ray", tmp_path / "local")

    def test_another_version_on_a_worker(self, nodes, configs, tmp_path, monkeypatch):
        monkeypatch.setattr(cluster, "_ours", lambda: ("9.9", 7))
        with pytest.raises(UserError, match=r"a worker of the cluster \(.*\) has crevasse .*, this machine 9.9"):
            run_all(configs, tmp_path, engine=RayEngine(nodes.address))

    def test_a_trial_that_cannot_run_is_one_line(self, nodes, configs, tmp_path):
        damaged = store.make_folder(tmp_path / "trials" / configs[0].id) / store.CHECKPOINT
        damaged.write_bytes(b"not a checkpoint")
        with pytest.raises(UserError, match=f"^{re.escape(str(damaged))} is damaged"):  # not where the worker had it
            run_all(configs[:2], tmp_path, engine=RayEngine(nodes.address), plan=plan(configs[:2]))
        assert store.load_trial(tmp_path / "trials" / configs[1].id)["status"] == "done"

    def test_a_trial_that_kills_its_worker_is_given_up_alone(self, nodes, small, configs, local, tmp_path):
        bad = small(form="trace", steps=100_000)

        def kill(event):
            if event.progress is not None:
                for process in workers(nodes):
                    process.kill()

        with pytest.raises(UserError, match=rf"the process of trial {bad.id} was killed \(out of memory\?\), 2 times"):
            run_all([bad], tmp_path, engine=RayEngine(nodes.address), on_event=kill)
        assert run_all(configs[:1], tmp_path, engine=RayEngine(nodes.address))[0]["status"] == "done"

    def test_ctrl_c_brings_the_checkpoints_home(self, nodes, configs, local, tmp_path):
        """Two trials are under way on two nodes; both go on from what they sent."""
        configs, engine, heard = configs[:2], RayEngine(nodes.address), Heard(in_the_middle, interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_all(configs, tmp_path, engine=engine, on_event=heard, plan=plan(configs))
        for config in configs:
            folder = tmp_path / "trials" / config.id
            assert (folder / store.CHECKPOINT).exists() and store.load_trial(folder)["status"] == "running"
        heard = Heard()
        run_all(configs, tmp_path, engine=engine, on_event=heard, plan=plan(configs))
        assert heard.ends() == [0, 1] and 0 not in heard.steps(0) + heard.steps(1)
        check_equal(configs, tmp_path, local)

    def test_checkpoints_come_home_while_a_trial_runs(self, nodes, small, tmp_path):
        config = small(form="trace", steps=100_000)
        sent = tmp_path / "trials" / config.id / store.CHECKPOINT
        heard = Heard(lambda heard: sent.exists(), lambda: workers(nodes)[0].kill())
        after = []

        def take(event):
            after.extend([event] if heard.acted else [])
            heard(event)
            if len(after) == 5:  # the first few may be of the worker that was killed
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_all([config], tmp_path, engine=RayEngine(nodes.address), on_event=take)
        assert min(e.progress.step for e in after) > 0  # a trial that begins says so with step 0
        assert heard.steps(0).count(0) == 1

    def test_a_killed_worker_costs_nothing(self, nodes, configs, local, tmp_path, capfd):
        heard = Heard(in_the_middle, lambda: workers(nodes)[0].kill())
        run_all(configs, tmp_path, engine=RayEngine(nodes.address), on_event=heard, plan=plan(configs))
        assert heard.acted and heard.ends() == [0, 1, 2, 3]
        check_equal(configs, tmp_path, local)
        assert capfd.readouterr() == ("", "")  # nor does Ray tell the user of it

    def test_a_killed_driver_goes_on(self, nodes, configs, local, tmp_path):
        configs = configs[:3]
        (tmp_path / "configs").write_bytes(pickle.dumps(configs))
        root = tmp_path / "out"
        command = [sys.executable, "-c", DRIVER, str(tmp_path / "configs"), str(root), nodes.address]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
            assert driver.stdout.readline().strip().isdigit()
            driver.kill()
        clocks = {p: p.read_bytes() for p in root.glob(f"trials/*/{store.CLOCK}")}
        done = [i for i, c in enumerate(configs) if root / "trials" / c.id / store.CLOCK in clocks]
        assert 1 <= len(done) < 3
        heard = Heard()
        run_all(configs, root, engine=RayEngine(nodes.address), on_event=heard, plan=plan(configs))
        assert heard.ends() == [0, 1, 2]
        assert all(heard.steps(number) == [] for number in done)  # they were read, not run
        assert {p: p.read_bytes() for p in clocks} == clocks
        check_equal(configs, root, local)

    def test_a_lost_node_costs_nothing(self, nodes, configs, local, tmp_path):
        second = next(node for node in nodes.list_all_nodes() if node is not nodes.head_node)
        heard = Heard(in_the_middle, lambda: nodes.remove_node(second, allow_graceful=False))
        try:
            # tries=1: a node that goes away is not the trial's fault
            engine = RayEngine(nodes.address, tries=1)
            run_all(configs, tmp_path, engine=engine, on_event=heard, plan=plan(configs))
        finally:
            nodes.add_node(**NODE)
        assert heard.acted and heard.ends() == [0, 1, 2, 3]
        check_equal(configs, tmp_path, local)


def test_what_is_complete_needs_no_cluster(configs, tmp_path):
    run_trial(configs[0], tmp_path)
    heard = Heard()
    run_all(configs[:1], tmp_path, engine=RayEngine("127.0.0.1:1"), on_event=heard)
    assert [e.record["status"] for e in heard.events] == ["done"]


def test_no_crevasse_on_a_worker(nodes, configs, tmp_path):
    """Nor is a connection that was there before the engine's to end."""
    (tmp_path / "crevasse").mkdir()
    (tmp_path / "crevasse" / "__init__.py").write_text("raise ImportError('not installed')")
    hidden = {"env_vars": {"PYTHONPATH": str(tmp_path)}}
    ray.init(nodes.address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=hidden)
    try:
        with pytest.raises(UserError, match=r"^a worker of the cluster \(.*\) cannot import crevasse: not installed$"):
            run_all(configs, tmp_path / "out", engine=RayEngine())
        assert ray.is_initialized()
    finally:
        ray.shutdown()


def test_the_page_in_the_docs(tmp_path, monkeypatch, capsys):
    """Its example starts a cluster of its own, and ends it."""
    page = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text("utf-8")
    monkeypatch.chdir(tmp_path)
    exec(re.search(r"```python\n(.*?)```", page, flags=re.DOTALL).group(1), {"__name__": "page"})
    assert capsys.readouterr().out.count("done") == 2
    assert not ray.is_initialized()


def test_nobody_answers(configs, tmp_path):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        free = f"127.0.0.1:{s.getsockname()[1]}"
    for address in (free, f"ray://{free}"):
        with pytest.raises(UserError, match=f"no Ray cluster answers at {address}"):
            run_all(configs, tmp_path, engine=RayEngine(address))


def test_something_else_answers(configs, tmp_path):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        address = f"127.0.0.1:{s.getsockname()[1]}"
        server = threading.Thread(target=lambda: s.accept()[0].sendall(b"SSH-2.0-OpenSSH"), daemon=True)
        server.start()
        with pytest.raises(UserError, match=f"what answers at {address} is not Ray"):
            run_all(configs, tmp_path, engine=RayEngine(address))
        server.join()


@pytest.mark.parametrize("address", ["nonsense", "http://localhost:1", "host:port", ":6379"])
def test_an_address_that_is_none(configs, tmp_path, address):
    with pytest.raises(UserError, match="a Ray address is HOST:PORT"):
        run_all(configs, tmp_path, engine=RayEngine(address))


def test_without_the_extra(configs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match="the Ray engine needs the extra ray: pip install"):
        run_all(configs, tmp_path, engine=RayEngine())


def test_the_record_comes_last(tmp_path, monkeypatch):
    """A driver that is killed between two files leaves a trial that is run again."""
    written = []
    monkeypatch.setattr(store, "write_atomically", lambda path, data: written.append(path.name))
    cluster._Sweep._keep(tmp_path, dict.fromkeys((store.TRIAL, store.WEIGHTS, store.LEDGER), b""), True)
    assert written == [store.WEIGHTS, store.LEDGER, store.TRIAL]
