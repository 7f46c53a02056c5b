//! Embeds the pages: builds `webapp/` when it must and can, and writes a table of what Vite made of it.
//!
//! The pages are built when `webapp/dist` is missing or older than its sources, `npm` is there and `AMS_SKIP_WEBAPP`
//! is unset. Without them a placeholder says how to build them: a Rust build never fails for want of Node.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::hash::Hasher;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// What the pages are made of, below `webapp/`.
const SOURCES: [&str; 10] = [
    "src",
    "public",
    "samples",
    "index.html",
    "player.html",
    "play.html",
    "package.json",
    "package-lock.json",
    "vite.config.ts",
    "tsconfig.json",
];

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let manifest_dir = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    let out_dir = PathBuf::from(std::env::var("OUT_DIR")?);
    let webapp = manifest_dir.join("../../webapp");
    let dist = webapp.join("dist");

    println!("cargo:rerun-if-env-changed=AMS_SKIP_WEBAPP");
    println!("cargo:rerun-if-changed=build.rs");
    for source in SOURCES.iter().map(|name| webapp.join(name)).filter(|path| path.exists()) {
        println!("cargo:rerun-if-changed={}", source.display());
    }
    // Named even while it is missing: cargo then asks again at the next build.
    println!("cargo:rerun-if-changed={}", dist.join("index.html").display());

    if is_stale(&webapp, &dist) && webapp.join("package.json").exists() {
        if std::env::var_os("AMS_SKIP_WEBAPP").is_some() {
            println!("cargo:warning=the pages were not rebuilt because AMS_SKIP_WEBAPP is set");
        } else if let Err(error) = build_pages(&webapp) {
            println!("cargo:warning=the pages could not be built: {error}");
        }
    }
    write_table(&dist, &out_dir)
}

fn is_stale(webapp: &Path, dist: &Path) -> bool {
    let Some(built) = modified(&dist.join("index.html")) else { return true };
    SOURCES.iter().filter_map(|name| newest(&webapp.join(name))).any(|source| source > built)
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

fn newest(path: &Path) -> Option<SystemTime> {
    if !path.is_dir() {
        return modified(path);
    }
    fs::read_dir(path).ok()?.filter_map(|entry| newest(&entry.ok()?.path())).max()
}

fn build_pages(webapp: &Path) -> Result<()> {
    let npm = |arguments: &[&str]| -> Result<()> {
        let output = Command::new("npm").args(arguments).current_dir(webapp).output()?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        let telling = lines.clone().find(|line| line.to_ascii_lowercase().contains("error"));
        let line = telling.or_else(|| lines.next()).unwrap_or("it said nothing");
        Err(format!("npm {}: {line}", arguments.join(" ")).into())
    };
    if Command::new("npm").arg("--version").output().is_err() {
        return Err("npm is not on the PATH; install Node 20 or newer".into());
    }
    let installed = modified(&webapp.join("node_modules/.package-lock.json"));
    let locked = modified(&webapp.join("package-lock.json"));
    if installed.is_none() || locked > installed {
        println!("cargo:warning=installing what the pages need (npm ci), this takes a minute");
        npm(&["ci", "--no-audit", "--no-fund"])?;
    }
    println!("cargo:warning=building the pages (npm run build)");
    npm(&["run", "build"])
}

/// Copies `dist` next to the table, so that what is compiled in cannot change in between.
fn write_table(dist: &Path, out_dir: &Path) -> Result<()> {
    let mut files = BTreeMap::new();
    if dist.join("index.html").exists() {
        collect(dist, dist, &mut files)?;
    }
    let copies = out_dir.join("pages");
    if copies.exists() {
        fs::remove_dir_all(&copies)?;
    }
    fs::create_dir_all(&copies)?;
    let mut table = String::from("pub(crate) static FILES: &[File] = &[\n");
    for (n, (name, path)) in files.iter().enumerate() {
        let content = fs::read(path)?;
        let mut hasher = std::hash::DefaultHasher::new();
        hasher.write(&content);
        fs::write(copies.join(n.to_string()), content)?;
        writeln!(
            table,
            "    File {{ name: {name:?}, tag: \"\\\"{:016x}\\\"\", content: \
             include_bytes!(concat!(env!(\"OUT_DIR\"), \"/pages/{n}\")) }},",
            hasher.finish()
        )?;
    }
    table.push_str("];\n");
    fs::write(out_dir.join("pages.rs"), table)?;
    Ok(())
}

fn collect(root: &Path, dir: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(root, &path, files)?;
        } else if let Some(name) = path.strip_prefix(root)?.to_str() {
            files.insert(name.replace('\\', "/"), path);
        }
    }
    Ok(())
}
