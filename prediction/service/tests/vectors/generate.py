#!/usr/bin/env python3
"""Writes vectors.json: histories of gaps, and what statsmodels forecasts for them the way the original service calls it.

Made with Python 3.11.7, statsmodels 0.15.0, numpy 2.4.6, scipy 1.17.1 (`pip install statsmodels==0.15.0`):

    python3 generate.py > vectors.json

`Winter` and `SARIMA` have no counterpart in the original (it fits no season, and answers SARIMA with an error): statsmodels is
given the season that the history was made with, and the orders that our service documents.
`null`: statsmodels raised an error, for which the original answers with the mean.
"""

import json
import platform
import sys
import warnings

import numpy as np
import scipy
import statsmodels
from statsmodels.tsa.api import ExponentialSmoothing, Holt, SimpleExpSmoothing
from statsmodels.tsa.ar_model import AutoReg
from statsmodels.tsa.arima.model import ARIMA

warnings.simplefilter("ignore")
random = np.random.default_rng(20260101)


def second_order(count, one, two, mean, noise):
    values = [mean, mean]
    for _ in range(count + 50):
        values.append(mean + one * (values[-1] - mean) + two * (values[-2] - mean) + noise * random.normal())
    return values[-count:]


def seasonal(count, season, slope, noise):
    return [season[at % len(season)] + slope * at + noise * random.normal() for at in range(count)]


histories = {}
for count in (25, 60, 200):
    histories[f"jittered period, {count}"] = (None, 5 + 0.2 * random.normal(size=count))
    histories[f"Poisson, {count}"] = (None, random.exponential(20, size=count))
    histories[f"bursty, {count}"] = (None, np.where(random.random(count) < 0.2, random.exponential(300, count), random.exponential(2, count)))
    histories[f"regime change, {count}"] = (None, np.where(np.arange(count) < count // 2, 5.0, 20.0) + 0.3 * random.normal(size=count))
    histories[f"random walk, {count}"] = (None, 60 + np.cumsum(random.normal(size=count)))
    histories[f"growing, {count}"] = (None, 3 + 0.1 * np.arange(count) + 0.2 * random.normal(size=count))
    histories[f"second order, {count}"] = (None, second_order(count, 0.5, 0.3, 30, 2))
    histories[f"oscillating, {count}"] = (None, second_order(count, -0.6, -0.3, 30, 2))
    histories[f"two periods, {count}"] = (2, seasonal(count, [5, 60], 0, 0.5))
    histories[f"season of three, {count}"] = (3, seasonal(count, [1, 2, 12], 0, 0.3))
    histories[f"season of five, growing, {count}"] = (5, seasonal(count, [10, 12, 30, 11, 14], 0.02, 0.5))
for count in (5, 8, 12, 20):
    histories[f"jittered period, {count}"] = (None, 5 + 0.2 * random.normal(size=count))
    histories[f"Poisson, {count}"] = (None, random.exponential(20, size=count))


def forecast(fit):
    try:
        value = float(fit().forecast(1)[0])
        return value if np.isfinite(value) else None
    except Exception:  # what the original catches
        return None


def original(fit, count):
    try:
        value = float(fit().predict(start=count, end=count)[0])
        return value if np.isfinite(value) else None
    except Exception:
        return None


vectors = []
for name, (season, gaps) in histories.items():
    gaps = [float(f"{gap:.9f}") for gap in gaps]
    count = len(gaps)
    forecasts = {
        "autoReg": original(lambda: AutoReg(gaps, lags=10).fit(), count),
        "ARIMA": original(lambda: ARIMA(gaps, order=(2, 0, 0)).fit(), count),
        "SES": original(lambda: SimpleExpSmoothing(gaps, initialization_method="estimated").fit(), count),
        "Holt": original(lambda: Holt(gaps, initialization_method="estimated").fit(), count),
    }
    if season is None:
        forecasts["Winter"] = forecasts["SES"]
        forecasts["SARIMA"] = forecasts["ARIMA"]
    else:
        forecasts["Winter"] = forecast(
            lambda: ExponentialSmoothing(
                gaps, trend="add", seasonal="add", seasonal_periods=season, initialization_method="estimated"
            ).fit()
        )
        forecasts["SARIMA"] = forecast(lambda: ARIMA(gaps, order=(2, 0, 0), seasonal_order=(1, 0, 0, season)).fit())
    vectors.append({"name": name, "season": season, "gaps": gaps, "forecasts": forecasts})

versions = {
    "python": platform.python_version(),
    "statsmodels": statsmodels.__version__,
    "numpy": np.__version__,
    "scipy": scipy.__version__,
}
head = json.dumps({"made by": "generate.py", "versions": versions})
body = ",\n".join(json.dumps(vector) for vector in vectors)
sys.stdout.write(f'{head[:-1]}, "vectors": [\n{body}\n]}}\n')
