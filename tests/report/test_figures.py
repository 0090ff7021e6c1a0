from itertools import pairwise

import pytest

from fedit.core.errors import InputError
from fedit.report.figures import partition_figure, save

LABELS = ["$x^{", "_hidden", "中文", "a\nb", "plain"] * 4


def bars(figure):
    return figure.axes[0]


def test_the_bars_of_a_client_add_up_to_its_rows():
    rows = {"one": list(range(15)), "two": list(range(15, 20)), "none": []}
    figure = partition_figure(rows, LABELS, names={"one": "First $"}, title="T", caption="C")
    ends = [
        max(patch.get_x() + patch.get_width() for patch in bars(figure).patches[client::3])
        for client in range(3)
    ]
    assert ends == [15, 5, 0]
    assert [tick.get_text() for tick in bars(figure).get_yticklabels()] == [
        "First $",
        "two",
        "none",
    ]
    assert [text.get_text() for text in figure.texts] == ["T", "C"]


def test_the_most_frequent_labels_have_a_colour_and_the_rest_are_other():
    labels = [f"label-{number:02d}" for number in range(30) for _ in range(31 - number)]
    figure = partition_figure({"one": range(len(labels))}, labels)
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown == [f"label-{number:02d}" for number in range(9)] + ["other (21)"]


def test_the_rings_hold_all_labels_inside_and_each_clients_outside():
    rings = partition_figure({"one": [0, 1], "two": [2]}, ["a", "b", "a"]).axes[1]
    spans = [(wedge.r, round(abs(wedge.theta2 - wedge.theta1))) for wedge in rings.patches]
    assert spans == [(0.66, 240), (0.66, 120), (1.0, 120), (1.0, 120), (1.0, 120)]


@pytest.mark.parametrize("clients", [1, 8, 100, 250])
def test_bars_and_names_stay_apart_for_any_number_of_clients(clients):
    figure = partition_figure({f"client-{n:03d}": [n] for n in range(clients)}, ["a"] * clients)
    figure.draw_without_rendering()
    boxes = [tick.get_window_extent() for tick in bars(figure).get_yticklabels()]
    assert all(upper.y0 > lower.y0 + 0.7 * lower.height for upper, lower in pairwise(boxes))
    legend = figure.legends[0].get_window_extent()
    assert not any(legend.overlaps(axes.get_window_extent()) for axes in figure.axes)


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_saving_twice_gives_the_same_bytes(tmp_path, suffix):
    figure = partition_figure({"one": list(range(20))}, LABELS)
    for name in "ab":
        save(figure, tmp_path / f"{name}.{suffix}")
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
    assert (tmp_path / f"a.{suffix}").stat().st_size > 1000


def test_what_cannot_be_saved_or_drawn_is_refused(tmp_path):
    figure = partition_figure({"one": [0]}, ["a"])
    with pytest.raises(InputError, match=r"cannot draw \.gif; end the name in \.png"):
        save(figure, tmp_path / "a.gif")
    with pytest.raises(InputError, match="cannot be written: No such file"):
        save(figure, tmp_path / "missing" / "a.png")
    with pytest.raises(InputError, match="no client has a row"):
        partition_figure({"one": []}, ["a"])
