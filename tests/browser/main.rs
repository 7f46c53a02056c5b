//! Real browsers and foreign programs against real nodes: what people and their tools see and hear.
//!
//! Owns the cases and what they accept as a moving picture; the drivers beside this file own the clients. Needs what
//! `tests/run browser` installs. One case runs at a time: two cores carry one publisher and a few decoders, not more.
//! Figures (first frame, frames per second) are printed, not judged: limits here only tell working from broken.

mod cases;
