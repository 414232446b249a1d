import os
from pathlib import Path

import pytest
from network_namespaces import loopback
from rank_crew import Crew, RankFailed

ACTING = """
import json, os, sys, time
rank = None
for line in sys.stdin:
    request = json.loads(line)
    if rank is None:
        rank = request["rank"]
        answer = {"sizes": [request["ranks"], request["port"]], "core": request["core"]}
    elif request.get("hang") == rank:
        print("stuck here", file=sys.stderr, flush=True)
        time.sleep(1000)
    elif request.get("die") == rank:
        print("last words", file=sys.stderr, flush=True)
        os._exit(3)
    elif request.get("fail") == rank or "die" in request:
        answer = {"error": "Traceback: this went wrong\\n"}
    else:
        answer = {"rank": rank, "pid": os.getpid(), "got": request}
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture
def worker(tmp_path: Path) -> Path:
    """A rank that does as it is told, without torch."""
    path = tmp_path / "worker.py"
    path.write_text(ACTING)
    return path


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_answers_come_by_rank_and_nobody_stays(worker: Path) -> None:
    with Crew(loopback(3), {}, worker=worker, port=1234) as crew:
        assert crew.sizes == [3, 1234]
        answers = crew.ask(number=7)
        assert [answer["rank"] for answer in answers] == [0, 1, 2]
        assert all(answer["got"] == {"number": 7} for answer in answers)
        assert len(crew.traffic()) == 3
        assert all(alive(answer["pid"]) for answer in answers)
    assert not any(alive(answer["pid"]) for answer in answers)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"fail": 1}, r"rank 1 failed:\nTraceback: this went wrong"),
        ({"die": 0}, r"rank 0 ended with status 3:\nlast words"),
        ({"hang": 2}, r"no answer from rank \[2\] within 3 s(?s:.)*stuck here"),
    ],
)
def test_a_rank_that_fails_ends_all(worker: Path, request_: dict[str, int], said: str) -> None:
    with Crew(loopback(3), {}, worker=worker, timeout_s=3) as crew:
        pids = [answer["pid"] for answer in crew.ask()]
        with pytest.raises(RankFailed, match=said):
            crew.ask(**request_)
    assert not any(alive(pid) for pid in pids)


def test_ranks_that_do_not_start_are_told(tmp_path: Path) -> None:
    worker = tmp_path / "broken.py"
    worker.write_text("import no_such_module")
    with pytest.raises(RankFailed, match="no_such_module"):
        Crew(loopback(2), {}, worker=worker)
