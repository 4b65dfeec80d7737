//! The models against statsmodels, called as the original service calls it (`vectors/generate.py`).

#![allow(clippy::unwrap_used, reason = "a test, its helpers included")]

use std::collections::BTreeMap;

use serde::Deserialize;
use wasm_operator_prediction::forecast::{Function, next_gap};

/// Of the standard deviation of the gaps: what two optimisers of the same function may differ by.
const TOLERANCE: f64 = 0.01;

/// Where statsmodels' default optimiser (L-BFGS-B) stops in another valley than the deepest, what the deepest gives.
const DEEPER: [(&str, Function, f64); 3] = [
    // statsmodels' own answer with `method="SLSQP"`: squared errors of 4897.1 instead of 5015.0.
    ("season of three, 200", Function::Holt, 4.957_786),
    // Likewise: 12.310 instead of 12.807.
    ("season of five, growing, 60", Function::Winter, 10.987_695),
    // α = 0, that is the regression line (numpy's `polyfit`): 118.5 instead of 123.8.
    ("second order, 25", Function::Holt, 29.010_597),
];

#[derive(Deserialize)]
struct Vectors {
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    name: String,
    gaps: Vec<f64>,
    season: Option<usize>,
    forecasts: BTreeMap<String, Option<f64>>,
}

impl Vector {
    fn mean(&self) -> f64 {
        self.gaps.iter().sum::<f64>() / self.gaps.len() as f64
    }

    fn deviation(&self) -> f64 {
        (self.gaps.iter().map(|gap| (gap - self.mean()).powi(2)).sum::<f64>() / self.gaps.len() as f64).sqrt()
    }

    /// What the documented rules make of statsmodels' answer.
    fn expected(&self, function: Function, theirs: Option<f64>) -> f64 {
        let deeper = DEEPER.iter().find(|(name, of, _)| *name == self.name && *of == function);
        match (deeper, theirs) {
            (Some((_, _, deeper)), Some(theirs)) => {
                assert!(
                    (deeper - theirs).abs() > TOLERANCE * self.deviation(),
                    "{} is no exception any more",
                    self.name
                );
                *deeper
            }
            (_, None) => self.mean(),
            (_, Some(theirs)) if theirs <= 0.0 => self.gaps.iter().copied().fold(f64::INFINITY, f64::min),
            (_, Some(theirs)) => theirs,
        }
    }
}

fn vectors() -> Vec<Vector> {
    serde_json::from_str::<Vectors>(include_str!("vectors/vectors.json")).unwrap().vectors
}

/// statsmodels refuses a season of two beside an autoregression of two, because their lags coincide. Ours fits their product.
fn is_refused_there(vector: &Vector, function: Function) -> bool {
    function == Function::Sarima && vector.season == Some(2)
}

#[test]
fn forecasts_agree_with_statsmodels() {
    let mut compared = 0;
    for vector in vectors() {
        for (name, theirs) in &vector.forecasts {
            let function = name.parse().unwrap();
            if is_refused_there(&vector, function) {
                assert_eq!(*theirs, None);
                continue;
            }
            let ours = next_gap(function, &vector.gaps).unwrap();
            let expected = vector.expected(function, *theirs);
            let off = (ours - expected).abs() / vector.deviation();
            assert!(off < TOLERANCE, "{name} on {}: {ours} instead of {expected}, off by {off:.3}", vector.name);
            compared += 1;
        }
    }
    assert!(compared > 200, "{compared}");
}

#[test]
fn a_season_of_two_is_fitted_where_statsmodels_refuses() {
    for vector in vectors().iter().filter(|vector| is_refused_there(vector, Function::Sarima)) {
        let next = if vector.gaps.len() % 2 == 0 { 5.0 } else { 60.0 };
        let ours = next_gap(Function::Sarima, &vector.gaps).unwrap();
        assert!((ours - next).abs() < 1.0, "{ours} on {}", vector.name);
    }
}
