//! The files that rules are about.

use std::path::{Path, PathBuf};

/// A source file.
pub(crate) struct Source {
    /// Its path from the repository's root, with forward slashes.
    pub(crate) path: String,
    /// Its text.
    pub(crate) text: String,
}

impl Source {
    /// Its text without what is compiled for tests alone; line numbers stay.
    pub(crate) fn without_tests(&self) -> String {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        if self.path.contains("/tests/") || ["tests.rs", "testing.rs"].contains(&name) {
            return String::new();
        }
        let mut kept = String::new();
        let mut in_tests = false;
        for line in self.text.lines() {
            in_tests |= line == "#[cfg(test)]";
            if !in_tests {
                kept.push_str(line);
            }
            kept.push('\n');
            // An item of the file ends where its brace, or its one line, does.
            let ends = line == "}" || (line.ends_with(';') && !line.starts_with(' '));
            in_tests &= !ends;
        }
        kept
    }
}

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every file below `folders` whose name ends in one of `endings`; what tools put there is left out.
pub(crate) fn files(folders: &[&str], endings: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    for folder in folders {
        collect(&root().join(folder), folder, endings, &mut found);
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!found.is_empty(), "no {endings:?} below {folders:?}");
    found
}

/// Every Rust file of ours.
pub(crate) fn rust() -> Vec<Source> {
    files(&["crates", "tests", "benches"], &[".rs"])
}

fn collect(folder: &Path, path: &str, endings: &[&str], found: &mut Vec<Source>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{path}/{name}");
        if entry.path().is_dir() {
            let made = ["target", "node_modules", ".cache", "dist", "corpus", "artifacts", ".git"];
            if !made.contains(&name.as_str()) {
                collect(&entry.path(), &path, endings, found);
            }
        } else if endings.iter().any(|ending| name.ends_with(ending))
            && let Ok(text) = std::fs::read_to_string(entry.path())
        {
            found.push(Source { path, text });
        }
    }
}
