"""``rqjobs demo`` as a newcomer runs it."""


def test_the_demo_succeeds_and_prints_the_next_steps(workers):
    done = workers.run("demo", RQJOBS_IMPORT="")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "failed twice, came back" in done.stdout
    assert "Next" in done.stdout
