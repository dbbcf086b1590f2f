"""What becomes of runs: every sign in every state, retries, preemptions, places and parallelism."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from cloudmesh.api.clusterjob_status import RunState
from cloudmesh.compute.jobs.job_status import make_status
from cloudmesh.compute.jobs.plan import Place, Rules, World, plan
from cloudmesh.compute.jobs.runs import Run, Seen, count_runs, read_runs, write_runs

NOW = "2026-11-23T10:00:00Z"
BEGAN = 1_763_892_000
A = Place("a")


def not_started(arguments: Sequence[tuple[str, ...]]) -> tuple[Run, ...]:
    return read_runs(arguments, ())


def submitted(**changes: object) -> Run:
    return replace(Run(0, state="Submitted", attempts=1, node="a"), **changes)  # type: ignore[arg-type]


def running(**changes: object) -> Run:
    return submitted(state="Running", started_at="2026-11-23T09:00:00Z", **changes)


def step(run: Run, seen: Seen, rules: Rules | None = None) -> Run:
    return plan([run], rules or Rules(), World({0: seen}, [A], accepting=False), NOW).runs[0]


def test_runs_are_written_down_before_they_are_asked_for() -> None:
    decided = plan(not_started([("x",), ("y",)]), Rules(), World({}, [A]), NOW)
    assert [(r.state, r.node, r.attempts) for r in decided.runs] == [("Submitted", "a", 1), ("Ready", "", 0)]
    assert decided.start == (decided.runs[0],)
    again = plan(decided.runs, Rules(), World({0: Seen("Unknown")}, [A]), NOW)
    assert again.start == ()
    assert again.runs == decided.runs


def test_a_run_that_never_began_is_asked_for_again_under_the_same_token() -> None:
    run = submitted()
    decided = plan([run], Rules(), World({0: Seen("None", "a")}, [A]), NOW)
    assert decided.start == (run,)
    assert decided.runs[0].token("uid") == run.token("uid")


@pytest.mark.parametrize("run", [submitted(), running()])
def test_what_nobody_knows_changes_nothing(run: Run) -> None:
    assert step(run, Seen("Unknown", "a", message="no answer")) == run


def test_done_only_when_the_command_ended_with_zero() -> None:
    seen = Seen("Ended", "a", exit_code=0, began=BEGAN, ended=BEGAN + 60, log=("j-logs-0", "run-0000"), output="j-o")
    run = step(submitted(), seen)
    assert (run.state, run.exit_code, run.log, run.output) == ("Done", 0, ("j-logs-0", "run-0000"), "j-o")
    assert (run.started_at, run.ended_at) == ("2025-11-23T10:00:00Z", "2025-11-23T10:01:00Z")


@pytest.mark.parametrize(
    ("seen", "state", "words"),
    [
        (Seen("Ended", "a", exit_code=3), "Failed", "ended with code 3"),
        (Seen("Ended", "a", exit_code=137), "Failed", "was killed (137): out of memory?"),
        (Seen("Ended", "a", exit_code=137, oom=True), "Failed", "was killed (137): out of memory"),
        (Seen("Ended", "a", exit_code=3, message="big is left"), "Failed", "ended with code 3; big is left"),
        (Seen("Ended", "a", exit_code=124, began=0, ended=60), "Timeout", "took longer than 60 s"),
        (Seen("Ended", "a", exit_code=137, began=0, ended=70), "Timeout", "took longer than 60 s"),
        (Seen("Ended", "a", exit_code=124, began=0, ended=5), "Failed", "ended with code 124"),
        (Seen("Ended", "a", exit_code=None), "Failed", "ended with code None"),
        (Seen("Timeout", "a", message="SLURM's limit was reached"), "Timeout", "took longer than 60 s; SLURM's"),
        (Seen("Lost", "a"), "Crash", "a was lost, or its process"),
        (Seen("None", "a"), "Crash", "a was lost, or its process"),
        (Seen("Refused", "", message="no such partition"), "Failed", "no such partition"),
    ],
)
def test_ends_that_are_not_well(seen: Seen, state: str, words: str) -> None:
    run = step(running(), seen, Rules(timeout=60))
    assert run.state == state
    assert words in run.message
    assert run.ended_at
    assert run.over


def test_a_dead_host_is_a_crash_and_never_done() -> None:
    run = step(running(exit_code=0), Seen("Lost", "a", exit_code=0))
    assert (run.state, run.exit_code) == ("Crash", None)


def test_a_machine_taken_away_is_no_try() -> None:
    run = running()
    for number in range(1, 4):
        run = step(run, Seen("Preempted", "a", message="spot"))
        assert (run.state, run.node, run.preemptions, run.attempts) == ("Ready", "", number, number)
        run = plan([run], Rules(), World({}, [A]), NOW).runs[0]
    assert step(run, Seen("Ended", "a", exit_code=1)).state == "Failed"


def test_a_machine_taken_away_is_a_crash_where_the_user_says_so() -> None:
    rules = Rules(requeue=False)
    run = step(running(), Seen("Preempted", "a"), rules)
    assert (run.state, run.message) == ("Crash", "a was taken away")
    assert step(running(), Seen("Preempted", "a"), replace(rules, retries=1)).state == "Ready"


def test_a_run_that_is_taken_away_for_ever_is_given_up() -> None:
    assert step(running(attempts=101, preemptions=100), Seen("Preempted", "a")).state == "Crash"


@pytest.mark.parametrize("sign", ["Ended", "Lost", "Timeout"])
def test_retries_are_counted(sign: str) -> None:
    run = running()
    states = []
    for _ in range(3):
        run = step(run, Seen(sign, "a", exit_code=1), Rules(retries=2))  # type: ignore[arg-type]
        states.append(run.state)
        if run.state == "Ready":
            run = plan([run], Rules(), World({}, [A]), NOW).runs[0]
    assert states[:2] == ["Ready", "Ready"]
    assert run.over
    assert run.attempts == 3


def test_attempts_have_their_own_tokens() -> None:
    tokens = {submitted(attempts=n, index=i).token(uid) for n in (1, 2) for i in (0, 1) for uid in ("u", "v")}
    assert len(tokens) == 8


def test_with_slurm_runs_wait_there_and_bring_their_node() -> None:
    decided = plan(not_started([(), (), ()]), Rules(parallelism=2), World({}, None), NOW)
    assert [r.state for r in decided.runs] == ["Submitted", "Submitted", "Ready"]
    assert decided.runs[0].node == ""
    seen = {0: Seen("Waiting", slurm_id=7, message="SLURM waits: Resources"), 1: Seen("Running", "b", 8)}
    runs = plan(decided.runs, Rules(parallelism=2), World(seen, None), NOW).runs
    assert [(r.state, r.slurm_id, r.node) for r in runs[:2]] == [("Submitted", 7, ""), ("Running", 8, "b")]
    assert runs[1].started_at == NOW


@pytest.mark.parametrize(
    ("choice", "chosen"),
    [("Sequential", ["a", "a", "b"]), ("Smart", ["b", "b", "a"]), ("Frugal", ["a", "b", "b"])],
)
def test_how_a_machine_is_chosen(choice: str, chosen: list[str]) -> None:
    places = [Place("a", 2), Place("b", 3)]
    busy = [Run(0, state="Running", attempts=1, node="a"), *not_started([()] * 4)[1:]]
    if choice == "Sequential":
        busy[0] = replace(busy[0], node="b")
    rules = Rules(choice=choice)  # type: ignore[arg-type]
    runs = plan(busy, rules, World({}, places), NOW).runs
    assert [r.node for r in runs[1:]] == chosen


def test_any_machine_may_be_chosen_at_random_and_the_same_again() -> None:
    places = [Place(n, 100) for n in "abc"]
    first = plan(not_started([()] * 60), Rules(choice="Random", seed="s"), World({}, places), NOW).runs
    assert {r.node for r in first} == {"a", "b", "c"}
    assert first == plan(not_started([()] * 60), Rules(choice="Random", seed="s"), World({}, places), NOW).runs
    assert first != plan(not_started([()] * 60), Rules(choice="Random", seed="t"), World({}, places), NOW).runs


def test_parallelism_bounds_what_runs() -> None:
    runs = plan(not_started([()] * 5), Rules(parallelism=2), World({}, [Place("a", 9)]), NOW).runs
    assert sum(r.active for r in runs) == 2
    runs = plan(runs, Rules(parallelism=1), World({}, [Place("a", 9)]), NOW).runs
    assert sum(r.active for r in runs) == 2  # none is ended for it


def test_nothing_starts_while_nothing_may() -> None:
    decided = plan(not_started([()]), Rules(), World({}, [A], accepting=False), NOW)
    assert decided.start == ()
    assert decided.runs[0].state == "Ready"


def test_what_is_written_is_read_again() -> None:
    runs = (
        running(arguments=("a", "b"), slurm_id=4, preemptions=1, attempts=2, message="m"),
        replace(Run(1, ("c",)), state="Failed", attempts=1, exit_code=0, log=("l", "k"), output="o", ended_at=NOW),
        Run(2, ("d",)),
    )
    written = write_runs(runs)
    assert read_runs([r.arguments for r in runs], written) == runs
    assert written[2] == {"index": 2, "name": "run-0002", "state": "Ready", "arguments": ["d"]}
    assert count_runs(runs) == {
        "total": 3, "ready": 1, "submitted": 0, "running": 1, "done": 0, "failed": 1, "timeout": 0, "crash": 0,
        "unsuccessful": 1,
    }  # fmt: skip


def test_many_long_arguments_are_left_out_of_the_status() -> None:
    runs = not_started([("x" * 1000,) * 8] * 1000)
    assert "arguments" not in write_runs(runs)[0]
    assert write_runs(not_started([("y" * 3000,)]))[0]["arguments"][0].endswith("…")


@pytest.mark.parametrize(
    ("states", "slurm", "words"),
    [
        (["Submitted"], True, "0 of 1 run is done; 1 is submitted"),
        (["Submitted"], False, "0 of 1 run is done; 1 is being started"),
        (["Done", "Running", "Submitted", "Ready"], False,
         "1 of 4 runs is done; 1 is running, 1 is being started, 1 waits"),
        (["Running", "Running", "Submitted", "Submitted", "Ready", "Ready"], True,
         "0 of 6 runs are done; 2 are running, 2 are submitted, 2 wait"),
    ],
)  # fmt: skip
def test_how_far_a_job_is_reads_well(states: list[RunState], slurm: bool, words: str) -> None:
    runs = [Run(index, state=state) for index, state in enumerate(states)]
    status = make_status({"metadata": {"generation": 1}}, runs, "", NOW, slurm=slurm)
    assert [c["message"] for c in status["conditions"] if c["type"] == "Ready"] == [words]
