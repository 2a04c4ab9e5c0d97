"""One figure a module.

``draw(experiment)`` returns the drawings of an experiment, none for one of another kind.
``NEEDS`` says what an experiment must have; None if the figure is drawn of nothing.
``WORK_FOLDERS`` says whether the figure can be drawn of runs outside any experiment.
"""

from types import ModuleType

from . import (
    calibration,
    class_sums,
    distances,
    grid,
    label_noise,
    learning_curves,
    logit_sums,
    losses,
    templates,
)

_LOGITS = (logit_sums, distances, templates, calibration)
FIGURES: dict[str, ModuleType] = {
    module.__name__.rpartition(".")[2]: module
    for module in (grid, *_LOGITS, label_noise, learning_curves, class_sums, losses)
}
