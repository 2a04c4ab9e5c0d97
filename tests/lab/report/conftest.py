import pytest
from matplotlib.figure import Figure


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Pictures of few pixels without layout; what is in them is looked at in the axes."""
    whole = Figure.savefig

    def savefig(figure, *args, **kwargs):
        figure.set_layout_engine("none")
        whole(figure, *args, **{**kwargs, "dpi": 20})

    monkeypatch.setattr(Figure, "savefig", savefig)
