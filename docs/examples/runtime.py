"""What detectors cost beside what they find."""

from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline

from skgradood import (
    ChiSquareJointDensity,
    FisherPreconditioner,
    GenerativeNet,
    GradientNormTransformer,
    LikelihoodRatioDetector,
    LogLikelihoodDetector,
    ScoreTestDetector,
    TypicalityDetector,
    make_detector,
)
from skgradood.datasets import load_digits_ood
from skgradood.inspection import RuntimeDisplay
from skgradood.models import VAE

digits = load_digits_ood(random_state=0)
vae = GenerativeNet(
    VAE, module__latent_dim=16, module__width=16, lr=2e-3, max_epochs=8, random_state=0
).fit(digits.train)
model = FrozenEstimator(vae)
detectors = {
    "log-likelihood": LogLikelihoodDetector(model),
    "two-sided likelihood": TypicalityDetector(model, statistic="p_value"),
    "ratio to zlib": LikelihoodRatioDetector(model, "zlib"),
    "joint density": make_pipeline(GradientNormTransformer(model), ChiSquareJointDensity()),
    "score test": make_pipeline(
        FisherPreconditioner(model, approximation="ekfac"), ScoreTestDetector()
    ),
    "recommended": make_detector(model, random_state=0),
}
for detector in detectors.values():
    detector.fit(digits.reference)
ood = {name: digits.ood[name] for name in ("halves", "rotation", "gaussian_blur", "clouds")}
display = RuntimeDisplay.from_estimators(detectors, digits.test, ood).plot()
display.figure_.savefig("runtime.png", dpi=90)
for name, seconds in display.seconds.items():
    print(f"{name:22} {1e3 * seconds:7.3f} ms, mean AUROC {display.mean_[name]:.3f}")
