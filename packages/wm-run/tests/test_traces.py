"""Pictures of vectors: what is drawn where."""

import numpy as np
from wm_run.filmstrip import GAP, GONE, LINE, MARGIN
from wm_run.traces import WIDE, traces


def test_a_feature_is_a_line_in_time_and_an_error_is_dark() -> None:
    true, predicted = np.zeros((1, 4, 160)), np.zeros((1, 4, 160))
    true[0, :, 0], predicted[0, :, 0] = 2.0, [2.0, 2.0, -2.0, 2.0]
    valid = np.array([[True, True, True, False]])
    page = traces(true, predicted, valid, context=1)
    columns = [MARGIN + t * WIDE + 4 for t in range(4)]
    tops = [LINE + i * (160 + GAP) for i in range(3)]
    assert page[tops[0], columns].tolist() == [[255, 0, 0]] * 4  # true, also where nothing is asked
    assert page[tops[1], columns].tolist() == [[255, 0, 0], [255, 0, 0], [0, 0, 255], [GONE] * 3]
    assert page[tops[2], columns].tolist() == [[255] * 3, [255] * 3, [0] * 3, [GONE] * 3]


def test_what_is_hardly_ever_there_is_not_blown_up() -> None:
    true, predicted = np.zeros((1, 2, 160)), np.zeros((1, 2, 160))
    true[..., 0], predicted[..., 1] = 1.0, 0.005
    page = traces(true, predicted, np.ones((1, 2), np.bool_), context=1)
    assert page[LINE + (160 + GAP) + 1, MARGIN + 4].tolist() == [255, 230, 230]
