"""What the estimators take of scikit-learn, or what to do if it is not there."""

try:
    from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import check_cv
    from sklearn.utils.metaestimators import available_if
    from sklearn.utils.validation import (
        _check_sample_weight,
        check_array,
        check_is_fitted,
        validate_data,
    )
except ImportError as error:
    raise ImportError(
        "linreg_ops.LinearRegression, Ridge and RidgeCV need scikit-learn 1.6 or later. "
        "Install it with: pip install 'scikit-learn>=1.6'"
    ) from error

__all__ = [
    "BaseEstimator",
    "ConvergenceWarning",
    "MultiOutputMixin",
    "RegressorMixin",
    "_check_sample_weight",
    "available_if",
    "check_array",
    "check_cv",
    "check_is_fitted",
    "validate_data",
]
