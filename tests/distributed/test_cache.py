"""Two processes fill one cache at the same time."""

import torch
from networks import build, wrn
from processes import run_on_two


def test_two_processes_share_a_cache_and_agree(tmp_path):
    torch.save(build(wrn(widen_factor=2), seed=3).state_dict(), tmp_path / "teacher.pth")
    run_on_two("cache_worker.py", tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first["right"]
    assert second["right"]
    assert torch.equal(first["logits"], second["logits"])
    (folder,) = (tmp_path / "caches").iterdir()
    assert not list(folder.glob("*.part"))
    assert first["missing"] + second["missing"] == 0
    assert first["entries"] == second["entries"] == 24 * 6
    # Each used what the other had computed: alone, it would have met every picture itself.
    assert min(first["misses"], second["misses"]) < 24 * 6
