import matplotlib.pyplot as plt
import numpy as np

import linreg_ops as lo

rng = np.random.default_rng(0)
x = np.linspace(-2, 4, 50) + rng.standard_normal(50)
y = np.linspace(-6, 6, 50) + rng.standard_normal(50)


def path(momentum, steps=40):
    """The weights after each number of steps: the same descent, stopped earlier and earlier."""
    return np.array([
        lo.gradient_descent(
            x[:, None], [1.0, -0.3], y, 0.002, t, intercept=True, momentum=momentum
        ).w
        for t in range(steps + 1)
    ])  # fmt: skip


slopes, intercepts = np.meshgrid(np.linspace(-0.6, 2.6, 150), np.linspace(-3.2, 1.8, 150))
losses = [
    lo.kernels.loss_and_grad(x[:, None], np.array([b, a]), y, intercept=True)[0]
    for a, b in zip(slopes.ravel(), intercepts.ravel(), strict=True)
]
losses = np.reshape(losses, slopes.shape)

figure, axes = plt.subplots(figsize=(7, 4.4), layout="constrained")
levels = losses.min() * np.array([1.02, 1.15, 1.5, 2, 3, 4.5, 7])
axes.contour(slopes, intercepts, losses, levels=levels, colors="0.75", linewidths=0.9)
for momentum, colour in ((0.0, "#0072B2"), (0.7, "#D55E00")):
    weights = path(momentum)
    axes.plot(weights[:, 1], weights[:, 0], ".-", color=colour, label=f"momentum {momentum}")
slope, intercept = np.polyfit(x, y, 1)
axes.plot(slope, intercept, "*", color="black", markersize=13, label="np.polyfit")
axes.set(xlabel="slope", ylabel="intercept")
axes.legend(frameon=False)
plt.savefig("momentum.svg", metadata={"Date": None})
