//! Medians, and lines to print them in.

/// The median; the lower of the two in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

/// Prints one figure: its name, its median, its range, its unit.
pub(crate) fn print(name: &str, values: &[f64], unit: &str) {
    let min = values.iter().copied().fold(f64::INFINITY, f64::min);
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    println!("{name:<44} {:>10.3} {unit:<12} ({min:.3} to {max:.3})", median(values.to_vec()));
}
