import matplotlib.pyplot as plt
import numpy as np

import linreg_ops as lo

rng = np.random.default_rng(0)
x = rng.standard_normal((1000, 20))
y = x @ np.arange(20.0) + rng.standard_normal(1000)
limit = 2 / np.linalg.eigvalsh(x.T @ x).max()
least = lo.kernels.loss_and_grad(x, np.linalg.lstsq(x, y, rcond=None)[0], y)[0]

figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
for share, colour in ((0.05, "#56B4E9"), (0.5, "#0072B2"), (0.95, "#009E73"), (1.05, "#D55E00")):
    w, losses = lo.gradient_descent(x, np.zeros(20), y, share * limit, 60)
    axes.plot(losses, color=colour, label=f"{share} of the limit")
axes.axhline(least, color="0.5", linestyle="--", label="least squares")
axes.set(xlabel="step", ylabel="loss", yscale="log", ylim=(least / 2, 1e8))
axes.set_title("A rate is stable below 2 / (largest eigenvalue of XᵀX)")
axes.legend(frameon=False)
plt.savefig("rates.svg", metadata={"Date": None})
