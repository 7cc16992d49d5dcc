import matplotlib.pyplot as plt
import numpy as np

import linreg_ops as lo

rng = np.random.default_rng(0)
x = np.linspace(-2, 4, 50) + rng.standard_normal(50)
y = np.linspace(-6, 6, 50) + rng.standard_normal(50)
w, losses = lo.gradient_descent(x[:, None], [0.0, 0.0], y, 0.002, 50, intercept=True)

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
left.plot(x, y, "o", color="#9A9A9A", markersize=4, label="fifty points")
ends = np.array([x.min(), x.max()])
left.plot(ends, w[0] + w[1] * ends, color="#0072B2", linewidth=2.5, label="gradient descent")
slope, intercept = np.polyfit(x, y, 1)
left.plot(ends, intercept + slope * ends, "--", color="#D55E00", label="np.polyfit")
left.set(xlabel="x", ylabel="y")
left.legend(frameon=False)
right.plot(losses, color="#0072B2", linewidth=2.5)
right.set(xlabel="step", ylabel="loss  ½ Σ (xw - y)²", yscale="log")
plt.savefig("line.svg", metadata={"Date": None})
