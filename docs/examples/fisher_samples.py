"""AUROC against the number of images that the Fisher matrices are estimated from."""

import numpy as np
from sklearn.frozen import FrozenEstimator

from skgradood import FisherPreconditioner, GenerativeNet, ScoreTestDetector
from skgradood.datasets import load_digits_ood
from skgradood.inspection import SweepDisplay
from skgradood.metrics import auroc
from skgradood.models import VAE

KINDS = ("diagonal", "ekfac")
digits = load_digits_ood(random_state=0)
vae = GenerativeNet(
    VAE, module__latent_dim=16, module__width=8, lr=2e-3, max_epochs=8, random_state=0
).fit(digits.train[:597])
pool = np.concatenate([digits.train[597:], digits.reference])
ood = [digits.ood[name][:100] for name in ("halves", "rotation", "gaussian_blur", "clouds")]


def detected(n_samples, seed):
    """Mean AUROC of the score test over four sets, by approximation."""
    rows = np.random.default_rng(seed).permutation(len(pool))[:n_samples]
    preconditioner = FisherPreconditioner(
        FrozenEstimator(vae), approximation=KINDS, cross_fit=False
    ).fit(pool[rows])
    calibration, test, *foreign = (
        np.split(preconditioner.transform(X), len(KINDS), axis=1)
        for X in (digits.calibration, digits.test, *ood)
    )
    results = {}
    for k, kind in enumerate(KINDS):  # a half of the columns each
        detector = ScoreTestDetector().fit(calibration[k])
        inliers = detector.score_samples(test[k])
        results[kind] = np.mean([auroc(inliers, detector.score_samples(X[k])) for X in foreign])
    return results


display = SweepDisplay.from_function(
    detected,
    [10, 30, 100, 300, 600],
    n_repetitions=2,
    random_state=0,
    value_name="images in the Fisher matrices",
    result_name="mean AUROC",
).plot(scale="log", chance=None)
display.figure_.savefig("fisher_samples.png", dpi=90)
for name, mean in display.mean_.items():
    print(f"{name:10}", mean.round(3))
