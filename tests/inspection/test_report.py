"""The report: the numbers are the detector's, and the page holds nothing foreign."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from PIL import Image
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skgradood.baselines import baseline_detectors
from skgradood.detectors import (
    ChiSquareJointDensity,
    CombinedDetector,
    ConformalDetector,
    on_columns,
)
from skgradood.inspection import DetectionReport
from skgradood.inspection._explanation import layer_evidence
from skgradood.inspection._png import png

VOID = {"meta", "img", "br", "line", "rect", "path"}


class Moments(TransformerMixin, BaseEstimator):
    """Three columns of an image or row: mean, deviation, and a constant."""

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def transform(self, X):
        flat = np.asarray(X, dtype=float).reshape(len(X), -1)
        return np.column_stack([flat.mean(1), flat.std(1), np.ones(len(X))])

    def get_feature_names_out(self, input_features=None):
        return np.array(["mean", "<deviation>", "constant"], dtype=object)


class Page(HTMLParser):
    """Collects text and attributes, and checks that elements are closed."""

    def __init__(self, html):
        super().__init__()
        self.open, self.attributes, self.text, self.tags = [], [], [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(100, 156, (400, 6, 5), dtype=np.uint8)


@pytest.fixture(scope="module")
def detector(images):
    with pytest.warns(UserWarning, match="do not vary"):
        pipeline = make_pipeline(Moments(), ChiSquareJointDensity()).fit(images[:200])
    return ConformalDetector(pipeline, calibration="prefit").fit(images[200:])


@pytest.fixture
def judged(images):
    X = images[:12].copy()
    X[3] = 255  # far too bright, and constant
    X[7] //= 2
    return X


@pytest.fixture
def report(detector, judged):
    names = [f"{i}.png" for i in range(12)]
    return DetectionReport.from_detector(detector, judged, names=names)


# --- why -------------------------------------------------------------------------------------


def test_layers_by_themselves_are_z_scores(detector, images, judged):
    evidence = layer_evidence(detector, judged)
    training = Moments().transform(images[:200])[:, :2]
    z = (Moments().transform(judged)[:, :2] - training.mean(0)) / training.std(0)
    assert evidence.names == ["mean", "<deviation>", "constant"]
    np.testing.assert_allclose(evidence.alone[:, :2], z)
    np.testing.assert_array_equal(evidence.alone[:, 2], 0)


def test_layers_given_the_others_are_standardised_residuals(rng):
    """Of the regression of each column on the others, under the fitted normal distribution."""
    X = rng.normal(size=(500, 3)) @ rng.normal(size=(3, 3))
    density = ChiSquareJointDensity(covariance="empirical").fit(X)
    evidence = layer_evidence(density, X)
    assert evidence.names == ["0", "1", "2"]
    z = scipy.stats.zscore(X)
    for column in range(3):
        others = np.delete(z, column, axis=1)
        residuals = z[:, column] - others @ np.linalg.lstsq(others, z[:, column], rcond=None)[0]
        np.testing.assert_allclose(
            evidence.given_others[:, column], residuals / residuals.std(), rtol=1e-3, atol=1e-3
        )


def test_where_layers_are_found(images, rng):
    X = rng.normal(size=(50, 2))
    density = ChiSquareJointDensity(dependence="independent").fit(X)

    members = [("forest", IsolationForest(random_state=0).fit(X)), ("density", density)]
    combined = CombinedDetector(members, reference="prefit").fit(X)
    for holder in (density, FrozenEstimator(density), combined, make_pipeline(combined)):
        evidence = layer_evidence(holder, X)
        np.testing.assert_allclose(evidence.alone, scipy.stats.zscore(X))
        assert evidence.given_others is None
    forest = make_pipeline(Moments(), IsolationForest(random_state=0)).fit(images)
    assert layer_evidence(forest, images) is None


def a_table(rng):
    """Statistics of 25 layers under two approximations and a likelihood, and what makes it."""
    names = [f"{i}__{kind}" for kind in ("identity", "ekfac") for i in range(25)]

    class Table(Moments):
        def transform(self, X):
            return np.asarray(X)

        def get_feature_names_out(self, input_features=None):
            return np.array([*names, "log_likelihood"], dtype=object)

    return Table().fit(None), rng.normal(size=(80, 51))


@pytest.mark.parametrize("name", ["recommended", "joint density (published)"])
def test_names_are_those_of_the_columns_that_are_judged(name, rng):
    table, X = a_table(rng)
    detectors = baseline_detectors(table.get_feature_names_out(), random_state=0)
    kind = "ekfac" if name == "recommended" else "identity"
    pipeline = make_pipeline(FrozenEstimator(table), detectors[name]).fit(X, None)
    calibrated = ConformalDetector(pipeline, calibration="prefit").fit(X)
    for holder in (pipeline, FrozenEstimator(pipeline), calibrated):
        evidence = layer_evidence(holder, X)
        assert evidence.names == [f"{i}__{kind}" for i in range(25)]
        assert evidence.alone.shape == (80, 25)


def test_names_pass_through_every_step(rng):
    table, X = a_table(rng)
    last = on_columns([2, 0], StandardScaler(), ChiSquareJointDensity())
    members = [("forest", IsolationForest(random_state=0)), ("last", last)]
    nested = make_pipeline("passthrough", CombinedDetector(members, random_state=0))
    pipeline = make_pipeline(table, on_columns([20, 21, 22], nested)).fit(X)
    evidence = layer_evidence(pipeline, X)
    assert evidence.names == ["22__identity", "20__identity"]
    fitted = pipeline[-1][-1][-1].detectors_[1]
    np.testing.assert_array_equal(evidence.alone, layer_evidence(fitted, X[:, 20:23]).alone)


def test_columns_are_numbered_where_nothing_names_them(rng):
    table, X = a_table(rng)
    whole = make_pipeline(table, FunctionTransformer(np.tanh), ChiSquareJointDensity()).fit(X)
    assert layer_evidence(whole, X).names == [str(i) for i in range(51)]
    chosen = on_columns([20, 22], ChiSquareJointDensity()).fit(X)
    assert layer_evidence(chosen, X).names == ["x20", "x22"]


def test_names_of_a_table_are_not_those_of_the_layers(rng):
    """Steps fitted on columns with names keep to those; the detector's are the last step's."""
    X = pd.DataFrame(rng.normal(size=(200, 3)), columns=list("abc"))
    scaler = FrozenEstimator(StandardScaler().fit(X))
    inner = make_pipeline(Moments(), ChiSquareJointDensity())
    with pytest.warns(UserWarning, match="do not vary"):
        nested = make_pipeline(scaler, inner).fit(X, None)
    assert layer_evidence(nested, X).names == ["mean", "<deviation>", "constant"]
    scaled = make_pipeline(scaler, make_pipeline(PCA(2), ChiSquareJointDensity())).fit(X, None)
    assert layer_evidence(scaled, X).names == ["pca0", "pca1"]
    selected = make_pipeline(scaler, on_columns([2, 1], ChiSquareJointDensity())).fit(X, None)
    assert layer_evidence(selected, X).names == ["c", "b"]


def test_wrong_names_are_no_evidence(images):
    class Misnamed(Moments):
        def get_feature_names_out(self, input_features=None):
            return np.array(["mean"], dtype=object)

    with pytest.warns(UserWarning, match="do not vary"):
        pipeline = make_pipeline(Misnamed(), ChiSquareJointDensity()).fit(images)
    with pytest.raises(ValueError, match=r"3 names, one a layer; got 1: \['mean'\]. Check get_fe"):
        layer_evidence(pipeline, images)


# --- what ------------------------------------------------------------------------------------


def test_the_order_is_that_of_the_scores(report, detector, judged):
    np.testing.assert_array_equal(report.scores, detector.score_samples(judged))
    assert set(report.flagged_) == set(np.flatnonzero(detector.predict(judged) == -1))
    assert {3, 7} <= set(report.flagged_)
    assert (np.diff(report.scores[report.order]) >= 0).all()


def test_the_page_tells_the_flagged_samples(report, tmp_path):
    report.save(tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert html == report.to_html()
    page = Page(html)
    text = " ".join("".join(page.text).split())
    assert f"{len(report.flagged_)} of 12 samples are outliers" in text
    cards = html.count('class="card"')
    assert cards == len(report.flagged_)
    assert re.findall(r'class="name">([^<]+)<', html) == [f"{i}.png" for i in report.flagged_]
    z = report.evidence.alone[0]
    assert f"mean {z[0]:+.1f}" in text.replace("\xa0", " ")


def test_a_page_that_cannot_be_written_leaves_the_old_one(report, tmp_path, monkeypatch):
    (tmp_path / "report.html").write_text("old")

    def fail(descriptor):
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="no space"):
        report.save(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == "old"


def test_a_name_that_is_no_text_is_escaped(detector, judged, tmp_path):
    names = [b"\xe9t\xe9.png".decode("utf-8", "surrogateescape")] * 12
    report = DetectionReport.from_detector(detector, judged, names=names)
    report.save(tmp_path / "report.html")
    assert r"\udce9t\udce9.png" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_pictures_are_the_samples(report, judged):
    html = report.to_html()
    shown = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        for data in re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    ]
    n_normal = min(8, 12 - len(report.flagged_))
    assert len(shown) == len(report.flagged_) + n_normal
    for row, image in zip([*report.flagged_, *report.order[::-1][:n_normal]], shown, strict=True):
        np.testing.assert_array_equal(image, judged[row])


def test_the_page_is_self_contained(report):
    page = Page(report.to_html())
    assert not {"script", "link", "iframe", "object", "base"} & set(page.tags)
    links = [value for name, value in page.attributes if name in ("src", "href", "srcset")]
    assert links
    assert all(value.startswith("data:image/png;base64,") for value in links)
    assert any("default-src 'none'" in (value or "") for _, value in page.attributes)
    assert "http:" not in report.to_html()
    assert "https:" not in report.to_html()


def test_names_cannot_inject(detector, judged):
    names = ["<script>alert(1)</script>"] * 12
    title = "<img src=x onerror=alert(1)>"
    report = DetectionReport.from_detector(detector, judged, names=names, title=title)
    page = Page(report.to_html())
    assert "script" not in page.tags
    assert ("src", "x") not in page.attributes
    assert "<script>alert(1)</script>" in page.text


def test_at_most_so_many_are_shown(report):
    html = report.to_html(max_shown=1)
    assert html.count('class="card"') == 1
    assert f"Not shown: {len(report.flagged_) - 1} more" in html


def test_nothing_flagged_and_everything_flagged(detector, images):
    scores = detector.score_samples(images[:200])
    normal = images[:200][scores > np.median(scores)][:5]
    html = DetectionReport.from_detector(detector, normal).to_html()
    assert "<b>0 of 5</b>" in html
    assert 'class="card"' not in html
    bright = np.full((3, 6, 5), 255, np.uint8)
    html = DetectionReport.from_detector(detector, bright).to_html()
    assert "<b>3 of 3</b>" in html
    assert "most normal" not in html
    Page(html)


def test_features_that_are_not_finite(detector, images):
    class Broken(Moments):
        def transform(self, X):
            features = super().transform(X)
            features[0] = np.nan
            return features

    pipeline = make_pipeline(Broken().fit(images), detector.detector_.steps[-1][1])
    broken = ConformalDetector(pipeline, calibration="prefit").fit(images[200:])
    report = DetectionReport.from_detector(broken, images[:5])
    assert report.order[0] == 0
    html = report.to_html()
    assert "Left out: 1 without a finite score" in html
    assert "Its features are not finite" in html
    Page(html)


def test_rows_of_a_table(rng):
    X = pd.DataFrame(rng.normal(size=(200, 8)), columns=list("abcdefgh"))
    detector = ConformalDetector(ChiSquareJointDensity(), random_state=0).fit(X)
    X.iloc[4] = 50.0
    report = DetectionReport.from_detector(detector, X)
    assert report.order[0] == 4
    html = report.to_html()
    assert "(50, 50, 50, 50, 50, 50, &hellip;)" in html
    assert "<img" not in html
    assert "by itself: " in html


def test_a_detector_that_knows_no_layers(images):
    forest = make_pipeline(Moments(), IsolationForest(random_state=0))
    detector = ConformalDetector(forest, random_state=0).fit(images)
    report = DetectionReport.from_detector(detector, np.full((2, 6, 5), 255, np.uint8))
    assert report.evidence is None
    assert "does not tell which layers" in report.to_html()


def test_wrong_input(detector, judged):
    with pytest.raises(TypeError, match="ConformalDetector; got ChiSquareJointDensity"):
        DetectionReport.from_detector(ChiSquareJointDensity(), judged)
    with pytest.raises(NotFittedError):
        DetectionReport.from_detector(ConformalDetector(ChiSquareJointDensity()), judged)
    with pytest.raises(ValueError, match="12 names, one a sample; got 1"):
        DetectionReport.from_detector(detector, judged, names=["a"])


@pytest.mark.parametrize("shape", [(1, 7, 3), (3, 2, 9), (3, 1, 1)])
def test_png_files_are_read_by_pillow(shape, rng):
    image = rng.integers(0, 256, shape, dtype=np.uint8)
    with Image.open(io.BytesIO(png(image))) as decoded:
        decoded.load()
        assert decoded.mode == ("L" if shape[0] == 1 else "RGB")
        pixels = np.asarray(decoded).reshape(shape[1], shape[2], shape[0])
    np.testing.assert_array_equal(pixels, image.transpose(1, 2, 0))
