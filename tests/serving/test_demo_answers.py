"""What the page shows of numbers, and of several heads on one trunk."""

import re

import numpy as np
import pytest
from test_export import WIDTH, X
from test_export_heads import ODD, make_three

from kerasmlp import EmbeddingStore
from kerasmlp.data.stores.store_info import StoreInfo
from kerasmlp.runs.predictors import open_predictors
from kerasmlp.serving.demo.answers import DemoAnswers


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    run = make_three(tmp_path_factory.mktemp("three"))
    return DemoAnswers(open_predictors([run], num_samples=6), None, num_samples=6)


def test_a_table_of_all_heads(answers, tmp_path):
    info = StoreInfo(normalized=False, embedder="made.onnx", embedder_sha256="0" * 64)
    EmbeddingStore(X, {"gender": np.zeros(7, int)}, info=info).save(tmp_path / "x.h5")
    html, headers, rows = answers.store(tmp_path / "x.h5", lambda rows, total: rows)
    assert headers == [
        "row", f"{ODD} in cm", f"{ODD}: from", f"{ODD}: to", f"{ODD}: uncertainty",
        "gender", "gender: uncertainty", "age", "from", "to", "age: uncertainty",
    ]  # fmt: skip
    assert len(rows) == 7 and X.shape[1] == WIDTH
    each = [list(p.rows(X, num_samples=6)) for p in answers.predictors]
    for row, number, gender, age in zip(rows, *each, strict=True):
        low, high = number["interval_90"]
        assert row[1:4] == pytest.approx([number[ODD], low, high], rel=1e-3)
        assert row[4] == pytest.approx(number["uncertainty"], abs=1e-3)
        assert row[5] == gender["gender"] and row[7] == round(age["age_years"], 1)
    assert html.count("data:image/png;base64,") == 1
    assert "Of a number it is the standard deviation of the answer" in html
    certain = re.search(rf"{re.escape(ODD)}: most certain.*?</table>", html)[0]
    first = int(re.search(r"<td>(\d+)</td>", certain)[1])
    assert row_of(rows, 4, min) == first
    assert re.search(r"<td>Größe \(cm\)/x [\d.]+ cm \(90%: [\d.]+–[\d.]+\), uncert", certain)


def row_of(rows, column, chosen):
    return chosen(rows, key=lambda row: row[column])[0]
