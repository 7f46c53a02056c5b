//! Criterion benches of the pieces and the whole-process bench.
