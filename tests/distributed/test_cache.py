"""Several processes fill one cache at the same time."""

import pytest
import torch
from networks import build, wrn
from processes import run_ranks


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    state = build(wrn(widen_factor=2), seed=3).state_dict()
    for world in (2, 4):
        (folder / str(world)).mkdir()
        torch.save(state, folder / str(world) / "teacher.pth")
    return run_ranks("distributed/cache_worker.py", folder)


@pytest.mark.parametrize("world", [2, 4])
def test_processes_share_a_cache_and_agree(folder, world):
    own = folder / str(world)
    ranks = [torch.load(own / f"{rank}.pt", weights_only=True) for rank in range(world)]
    for rank in ranks:
        assert rank["right"]
        assert torch.equal(rank["logits"], ranks[0]["logits"])
        assert rank["missing"] == 0
        assert rank["entries"] == 24 * 6
    (cache,) = (own / "caches").iterdir()
    assert not list(cache.glob("*.part"))
    # Each used what others had computed: alone, it would have met every picture itself.
    assert min(rank["misses"] for rank in ranks) < 24 * 6
