import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import linreg_ops as lo

digits = load_digits()
x, labels = digits.data / 16, digits.target
train = np.arange(len(x)) % 4 > 0
targets = np.eye(10)[labels]  # one column for each digit
model = lo.LinearRegression().fit(x[train], targets[train])
guesses = model.predict(x[~train]).argmax(axis=1)

figure, panels = plt.subplots(1, 10, figsize=(10, 1.6), layout="constrained")
for digit, axes in enumerate(panels):
    weights = model.coef_[digit].reshape(8, 8)
    size = np.abs(weights[1:, 1:-1]).max()
    axes.imshow(weights, cmap="RdBu_r", vmin=-size, vmax=size)
    axes.set(title=digit, xticks=[], yticks=[])
right = np.mean(guesses == labels[~train])
figure.suptitle(f"A linear probe's weights: {100 * right:.0f}% of the unseen digits are right")
plt.savefig("probe.svg", metadata={"Date": None})
