//! Optimisation: learning-rate schedules.

pub mod schedule;
