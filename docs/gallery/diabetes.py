import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.model_selection import cross_val_predict

import linreg_ops as lo

data = load_diabetes()
predicted = cross_val_predict(lo.LinearRegression(), data.data, data.target, cv=10)
model = lo.LinearRegression().fit(data.data, data.target)

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
ends = [data.target.min(), data.target.max()]
left.plot(ends, ends, color="0.6", linestyle="--")
left.plot(data.target, predicted, ".", color="#0072B2", alpha=0.6)
left.set(xlabel="disease progression", ylabel="predicted, held out", aspect="equal")
order = np.argsort(np.abs(model.coef_))
right.barh(np.array(data.feature_names)[order], model.coef_[order], color="#0072B2")
right.set(xlabel="coefficient of the standardized column")
plt.savefig("diabetes.svg", metadata={"Date": None})
