"""Whether two flows, trained on digits and on turned digits, agree scale by scale."""

import numpy as np
from sklearn.frozen import FrozenEstimator

from skgradood import GenerativeNet, LogLikelihoodTransformer
from skgradood.datasets import load_digits_ood, perturb
from skgradood.inspection import RankCorrelationDisplay
from skgradood.models import Glow

digits = load_digits_ood(random_state=0)
sets = {"digits": digits.test, "clouds": digits.ood["clouds"], "halves": digits.ood["halves"]}
images = np.concatenate(list(sets.values()))
training = {"digits": digits.train, "turned digits": perturb(digits.train, "rotation")}


def contributions(name, X):
    """What each scale of a Glow adds to the log-likelihood of the images, and their sum."""
    glow = GenerativeNet(
        Glow, module__n_steps=2, module__hidden_channels=16, max_epochs=8, random_state=0
    ).fit(X)
    transformer = LogLikelihoodTransformer(FrozenEstimator(glow), contributions=True)
    parts = transformer.fit(X).transform(images)
    columns = {f"{name}, scale {k + 1}": part for k, part in enumerate(parts.T)}
    return columns | {f"{name}, all": parts.sum(axis=1)}


first, second = (contributions(name, X) for name, X in training.items())
display = RankCorrelationDisplay.from_predictions(
    first, against=second, groups=np.repeat(list(sets), 300)
).plot()
display.figure_.savefig("scales.png", dpi=90)
print(display.correlations_.round(2))
