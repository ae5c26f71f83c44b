"""AUROC against the brightness of the images to be told from digits.

Digits have 17 grey levels. Changed images are rounded to them, or their other levels would be all
that is seen.
"""

import numpy as np
from sklearn.frozen import FrozenEstimator

from skgradood import GenerativeNet, LogLikelihoodDetector, TypicalityDetector, make_detector
from skgradood.datasets import load_digits_ood, perturb
from skgradood.inspection import SweepDisplay
from skgradood.metrics import auroc
from skgradood.models import VAE

digits = load_digits_ood(random_state=0)
vae = GenerativeNet(
    VAE, module__latent_dim=16, module__width=16, lr=2e-3, max_epochs=8, random_state=0
).fit(digits.train)
model = FrozenEstimator(vae)
detectors = {
    "log-likelihood": LogLikelihoodDetector(model),
    "two-sided likelihood": TypicalityDetector(model, statistic="p_value"),
    "recommended": make_detector(model, random_state=0),
}
for detector in detectors.values():
    detector.fit(digits.reference)


def brightened(images, factor):
    """Images of another brightness with the digits' grey levels."""
    levels = np.rint(perturb(images, "brightness", severity=factor) * (16 / 255))
    return np.rint(levels * (255 / 16)).astype(np.uint8)


def detected(factor, seed):
    """AUROC of the test digits, made brighter, against as many others as they are."""
    chosen = np.random.default_rng(seed).permutation(300)[:100]
    original, changed = digits.calibration[chosen], brightened(digits.test[chosen], factor)
    return {
        name: auroc(detector.score_samples(original), detector.score_samples(changed))
        for name, detector in detectors.items()
    }


display = SweepDisplay.from_function(
    detected,
    [0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8],
    n_repetitions=3,
    random_state=0,
    value_name="brightness",
).plot()
display.figure_.savefig("brightness.png", dpi=90)
for name in detectors:
    print(f"{name:22}", display.mean_[name].round(3))
