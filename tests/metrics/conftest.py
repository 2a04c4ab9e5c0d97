import pytest
from processes import run_ranks

SIZES = (37, 38, 1)


@pytest.fixture(scope="session")
def ranks(tmp_path_factory):
    """The folders of what 2 and 4 processes measured and exported of data sets of these sizes."""
    return run_ranks("metrics/worker.py", tmp_path_factory.mktemp("ranks"), *SIZES)
