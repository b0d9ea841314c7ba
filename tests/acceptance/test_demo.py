"""``rqjobs demo`` as a newcomer runs it."""


def test_the_demo_ends_well_and_says_what_to_do_next(workers):
    done = workers.run("demo", RQJOBS_IMPORT="")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "failed twice, came back" in done.stdout
    assert "Next" in done.stdout
