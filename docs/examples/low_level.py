"""Whether a VAE's likelihood follows neighbouring pixels, amplitudes or phases.

Rank correlations of its likelihood with a density that knows pixel differences alone, and of
likelihoods of images mixed from two with those of the sources of their amplitudes and phases.
"""

import numpy as np
from matplotlib.figure import Figure
from sklearn.frozen import FrozenEstimator

from skgradood import GenerativeNet, LikelihoodRatioDetector
from skgradood.datasets import load_digits_ood, mix_fourier
from skgradood.inspection import RankCorrelationDisplay
from skgradood.metrics import auroc
from skgradood.models import VAE, PixelDifferenceModel

digits = load_digits_ood(random_state=0)
vae = GenerativeNet(
    VAE, module__latent_dim=16, module__width=16, lr=2e-3, max_epochs=8, random_state=0
).fit(digits.train)
differences = PixelDifferenceModel().fit(digits.train)

shown = ("inversion", "gaussian_blur", "clouds", "rotation")
sets = {"digits": digits.test} | {name: digits.ood[name] for name in shown}
images = np.concatenate(list(sets.values()))
neighbours = RankCorrelationDisplay.from_predictions(
    {"VAE": vae.score_samples(images)},
    against={"pixel differences": differences.score_samples(images)},
    groups=np.repeat(list(sets), 300),
)

pairs = {
    "two digits": (digits.test, digits.reference),
    "amplitude of clouds": (digits.ood["clouds"], digits.reference),
    "phase of clouds": (digits.test, digits.ood["clouds"]),
}
amplitude, phase = (np.concatenate(sources) for sources in zip(*pairs.values(), strict=True))
mixed = RankCorrelationDisplay.from_predictions(
    {"mixed": vae.score_samples(mix_fourier(amplitude, phase))},
    against={
        "amplitude source": vae.score_samples(amplitude),
        "phase source": vae.score_samples(phase),
    },
    groups=np.repeat(list(pairs), 300),
)

figure = Figure(figsize=(10, 3.5), layout="constrained")
for display, ax in zip((neighbours, mixed), figure.subplots(1, 2), strict=True):
    display.plot(ax=ax)
figure.savefig("low_level.png", dpi=90)

detector = LikelihoodRatioDetector(FrozenEstimator(vae), PixelDifferenceModel())
detector.fit(digits.reference)
inliers = [score(digits.test) for score in (vae.score_samples, detector.score_samples)]
for name in shown:
    scores = [score(sets[name]) for score in (vae.score_samples, detector.score_samples)]
    areas = [auroc(a, b) for a, b in zip(inliers, scores, strict=True)]
    print(f"{name:15} AUROC: likelihood {areas[0]:.3f}, ratio to differences {areas[1]:.3f}")
