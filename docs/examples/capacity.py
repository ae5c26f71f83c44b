"""AUROC and bits per dimension against the width of the model, from 0.5 to 4 times 8 channels."""

import numpy as np
from sklearn.frozen import FrozenEstimator

from skgradood import GenerativeNet, LogLikelihoodDetector, make_detector
from skgradood.datasets import load_digits_ood
from skgradood.inspection import SweepDisplay
from skgradood.metrics import auroc
from skgradood.models import VAE

digits = load_digits_ood(random_state=0)
ood = [digits.ood[name] for name in ("halves", "rotation", "gaussian_blur", "mirror")]


def detected(factor, seed):
    """Mean AUROC of two detectors over four sets."""
    vae = GenerativeNet(
        VAE,
        module__latent_dim=16,
        module__width=int(8 * factor),
        lr=2e-3,
        max_epochs=6,
        random_state=seed,
    ).fit(digits.train)
    bits = vae.bits_per_dim(digits.test).mean()
    print(f"width {int(8 * factor)}: {bits:.3f} bits/dim", flush=True)
    model = FrozenEstimator(vae)
    results = {}
    for name, detector in (
        ("log-likelihood", LogLikelihoodDetector(model)),
        ("recommended", make_detector(model, random_state=0)),
    ):
        detector.fit(digits.reference)
        inliers = detector.score_samples(digits.test)
        results[name] = np.mean([auroc(inliers, detector.score_samples(X)) for X in ood])
    return results


display = SweepDisplay.from_function(
    detected,
    [0.5, 1, 2, 4],
    random_state=0,
    value_name="width of the VAE, relative to 8 channels",
    result_name="mean AUROC",
).plot(scale="log")
display.figure_.savefig("capacity.png", dpi=90)
for name, mean in display.mean_.items():
    print(f"{name:15}", mean.round(3))
