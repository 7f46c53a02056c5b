//! Records which commit and which compiler made this binary, for `--version`.
//!
//! Reads the repository's own files instead of calling git, so that a build without git works and says "unknown".
//! `AMS_BUILD_COMMIT` overrides it where the repository is not part of the build context (container images).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=AMS_BUILD_COMMIT");
    let commit = env::var("AMS_BUILD_COMMIT").ok().filter(|c| !c.is_empty()).or_else(commit_from_files);
    println!("cargo:rustc-env=AMS_NODE_COMMIT={}", short(commit.as_deref().unwrap_or("unknown")));
    println!("cargo:rustc-env=AMS_NODE_RUSTC={}", rustc().unwrap_or_else(|| "rustc unknown".into()));
}

fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}

/// `rustc 1.90.0`, without hash and date.
fn rustc() -> Option<String> {
    let output = Command::new(env::var_os("RUSTC")?).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
}

/// Follows `.git/HEAD` to a commit: a branch's own file, else the packed list.
fn commit_from_files() -> Option<String> {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR")?);
    let dot_git = manifest.ancestors().map(|dir| dir.join(".git")).find(|path| path.exists())?;
    let git = if dot_git.is_dir() {
        dot_git
    } else {
        // A work tree: the file names the directory.
        let named = fs::read_to_string(&dot_git).ok()?;
        dot_git.parent()?.join(named.strip_prefix("gitdir:")?.trim())
    };
    let head = read_watched(&git.join("HEAD"))?;
    let Some(branch) = head.strip_prefix("ref:").map(str::trim) else { return Some(head) };
    // A work tree keeps its HEAD to itself and shares the branches.
    let shared = fs::read_to_string(git.join("commondir")).map_or_else(|_| git.clone(), |dir| git.join(dir.trim()));
    read_watched(&shared.join(branch)).or_else(|| {
        let packed = read_watched(&shared.join("packed-refs"))?;
        let line = packed.lines().find(|line| line.ends_with(branch))?;
        line.split_whitespace().next().map(str::to_owned)
    })
}

fn read_watched(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    println!("cargo:rerun-if-changed={}", path.display());
    Some(text.trim().to_owned())
}
