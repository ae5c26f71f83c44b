"""RGB or HSV: how representing colours differently changes bits per dimension.

``python hsv.py`` compares patches of scikit-learn's two photographs, ``python hsv.py A B`` folders
of images, or .npz files, of your own.
"""

import sys

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_sample_images
from sklearn.feature_extraction.image import extract_patches_2d

from skgradood.datasets import load_images, rgb_to_hsv

if sys.argv[1:]:
    sets = {path: load_images(path, size=(32, 32), mode="rgb").data for path in sys.argv[1:]}
else:
    sets = {
        name: extract_patches_2d(image, (32, 32), max_patches=500, random_state=0)
        for name, image in zip(("temple", "flower"), load_sample_images().images, strict=True)
    }

figure = Figure(figsize=(6, 3), layout="constrained")
ax = figure.subplots()
for name, images in sets.items():
    _, log_det = rgb_to_hsv(images, random_state=0)
    change = log_det.sum(axis=(1, 2)) / (images[0].size * np.log(2))
    ax.hist(change, bins=40, histtype="step", linewidth=1.6, label=name)
    print(f"{name:10} bits/dim change by {change.mean():+.3f} on average, std {change.std():.3f}")
ax.set_xlabel("change of bits per dimension from RGB to HSV")
ax.set_ylabel("images")
ax.legend(frameon=False)
figure.savefig("hsv.png", dpi=90)
