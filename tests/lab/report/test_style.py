"""Whether methods can be told apart, in colour, by the colour-blind and in print."""

import itertools
import math

import numpy as np
import pytest

from mmkd_logit.lab.report import style

# Machado, Oliveira and Fernandes 2009, severity 1, for linear RGB.
VISIONS = dict(
    all_cones=np.eye(3),
    protanopia=[
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    deuteranopia=[
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    tritanopia=[
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
)
TO_XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
TABLE1 = [style.TEACHER, style.CE, style.MSE]
TABLE1 += [style.look_of(dict(kind="kl", tau=tau)) for tau in (1, 3, 5, 20, "inf")]
ALL = [*TABLE1, style.OTHER]
ALL += [style.look_of(dict(kind="kl", tau=tau)) for tau in (0.1, 0.5, 10)]


def lab(color, vision="all_cones"):
    """CIE L*a*b* of a colour, as somebody sees it."""
    rgb = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(VISIONS[vision]) @ linear, 0, 1)
    xyz = np.array(TO_XYZ) @ seen / [0.95047, 1, 1.08883]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def apart(looks, vision):
    pairs = itertools.combinations([lab(look.color, vision) for look in looks], 2)
    return min(np.linalg.norm(a - b) for a, b in pairs)


def test_lab_knows_white_and_red():
    assert lab("#ffffff") == pytest.approx([100, 0, 0], abs=0.02)
    assert lab("#ff0000") == pytest.approx([53.2, 80.1, 67.2], abs=0.1)
    red, green = lab("#b03000", "deuteranopia"), lab("#6a6a00", "deuteranopia")
    assert np.linalg.norm(red - green) < 0.3 * np.linalg.norm(lab("#b03000") - lab("#6a6a00"))


@pytest.mark.parametrize("vision", VISIONS)
def test_methods_of_the_tables_are_apart_for_everyone(vision):
    assert apart(TABLE1, vision) > 19
    assert apart(ALL, vision) > 12


@pytest.mark.parametrize("vision", VISIONS)
def test_other_methods_are_apart_from_each_other_and_from_what_stands_beside_them(vision):
    shown = [style.TEACHER, style.CE, style.MSE, style.look_of(dict(kind="kl", tau=20))]
    assert apart([*shown, *style.shades(style.OTHER, 8)], vision) > 11


def test_in_grey_lines_and_markers_tell_methods_apart():
    for a, b in itertools.combinations(ALL, 2):
        assert a.marker != b.marker
        near = abs(lab(a.color)[0] - lab(b.color)[0]) < 8
        assert not near or a.linestyle != b.linestyle or style.TEACHER in (a, b), (a, b)


def test_colours_are_dark_enough_for_white_paper():
    assert max(lab(look.color)[0] for look in ALL) < 71


def test_greater_temperatures_are_later_and_lighter():
    taus = [0, 0.05, 0.1, 0.3, 0.5, 1, 2, 2.5, 3, 4, 5, 7, 10, 15, 20, 50, 1e6, "inf"]
    looks = [style.look_of(dict(kind="kl", tau=tau)) for tau in taus]
    orders = [look.order for look in looks]
    assert orders == sorted(set(orders))
    assert style.CE.order < orders[0]
    assert orders[-1] < style.MSE.order
    shown = [lab(look.color)[0] for look in TABLE1[3:]]
    assert shown == sorted(shown)


def test_unknown_temperatures_look_like_their_neighbours_but_dotted():
    known, near = (style.look_of(dict(kind="kl", tau=tau)) for tau in (3, 2.5))
    assert (known.color, known.marker) == (near.color, near.marker)
    assert known.linestyle != near.linestyle


def test_names():
    def name(**method):
        return style.name_of(dict(dict(loss=None, tau=None), **method))

    assert name(kind="kl", tau=3) == "KL τ = 3"
    assert name(kind="kl", tau="inf") == name(kind="kl", tau=math.inf) == "KL τ = ∞"
    assert (name(kind="ce"), name(kind="mse")) == ("CE", "MSE")
    assert name(kind="other", loss="DKDLoss") == "DKDLoss"
    assert style.look_of(dict(kind="other", tau=4)) == style.OTHER


@pytest.mark.parametrize("count", [1, 2, 5, 12])
def test_shades_are_all_different(count):
    found = style.shades(style.MSE, count)
    assert len({look[:3] for look in found}) == count
    assert found[0].order == style.MSE.order
    lightness = [lab(look.color)[0] for look in found]
    assert lightness == sorted(lightness)
    assert max(lightness) < 75
