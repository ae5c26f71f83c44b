"""Histograms of a VAE's log-likelihoods: which foreign images it finds more likely than digits."""

from skgradood import GenerativeNet
from skgradood.datasets import load_digits_ood
from skgradood.inspection import LikelihoodDisplay
from skgradood.models import VAE

digits = load_digits_ood(random_state=0)
vae = GenerativeNet(
    VAE, module__latent_dim=16, module__width=16, lr=2e-3, max_epochs=8, random_state=0
).fit(digits.train)

shown = ("noise", "inversion", "rotation", "gaussian_blur", "clouds", "constant")
sets = {"digits": digits.test} | {name: digits.ood[name] for name in shown}
display = LikelihoodDisplay.from_estimator(vae, sets).plot(unit="bits_per_dim")
display.figure_.savefig("likelihoods.png", dpi=90)
for name, area in display.auroc_.items():
    print(f"{name:15} AUROC of the log-likelihood {area:.3f}")
