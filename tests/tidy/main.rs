//! The repository's own rules, read from its files: the walls of ARCHITECTURE.md, and the habits every file keeps.
//!
//! Owns the list of rules. Reads manifests and sources as text; compiles nothing.

mod rules;
mod sources;
mod walls;
