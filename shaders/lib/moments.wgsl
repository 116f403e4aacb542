// Moments of values in parts.
#import tally

// Count, mean and sum of squared deviations of two sets of values taken together (Chan et al. 1979).
fn merge_moments(a: Tally, b: Tally) -> Tally {
    let total = max(a.count + b.count, 1.0);
    let delta = b.first - a.first;
    let mean = a.first + delta * (b.count / total);
    return Tally(a.count + b.count, mean, a.second + b.second + delta * delta * (a.count * b.count / total));
}
