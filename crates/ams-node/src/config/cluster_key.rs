//! The file with the secret that the nodes of one cluster share.
//!
//! Owns what to tell an operator about it. The key itself, and what makes one long enough, belong to `ams-relay`.

use std::io::ErrorKind;
use std::path::Path;

use ams_relay::ClusterKey;
use ams_relay::key::KeyError;

/// Reads the key; the second value is a warning for the operator, if there is one.
///
/// # Errors
/// What is wrong and what to do, as two sentences.
pub(super) fn load(path: &Path) -> Result<(ClusterKey, Option<String>), (String, String)> {
    let shown = path.display();
    let key = ClusterKey::from_file(path).map_err(|error| match error {
        KeyError::Read { cause, .. } if cause.kind() == ErrorKind::PermissionDenied => {
            (format!("{shown} cannot be read: {cause}"), "let the user who runs ams-node read it".into())
        }
        KeyError::Read { cause, .. } => (format!("{shown} cannot be read: {cause}"), make(path)),
        other => (format!("{shown}: {other}"), make(path)),
    })?;
    let warning = readable_by_all(path).then(|| {
        format!("every user of this machine can read the cluster key; `chmod 600 {shown}` keeps it to its owner")
    });
    Ok((key, warning))
}

fn make(path: &Path) -> String {
    let shown = path.display();
    format!("make one with `openssl rand -hex 32 > {shown} && chmod 600 {shown}` and copy it to every node")
}

fn readable_by_all(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o004 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn with_file(text: &str, mode: u32) -> Result<(ClusterKey, Option<String>), (String, String)> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        load(file.path())
    }

    #[test]
    fn a_file_open_to_all_is_warned_of() {
        let text = "0123456789abcdef0123456789abcdef\n";
        assert_eq!(with_file(text, 0o600).unwrap().1, None);
        assert!(with_file(text, 0o644).unwrap().1.unwrap().contains("chmod 600"));
    }

    #[test]
    fn what_is_no_key_is_refused_with_the_command_that_makes_one() {
        for (name, text) in [("empty", ""), ("short", "secret\n"), ("another file", &"x".repeat(50_000))] {
            let (what, fix) = with_file(text, 0o600).unwrap_err();
            assert!(what.contains("the cluster key has"), "{name}: {what}");
            assert!(fix.contains("openssl rand -hex 32"), "{name}: {fix}");
        }
        let (what, fix) = load(Path::new("/nonexistent/cluster.key")).unwrap_err();
        assert!(what.contains("/nonexistent/cluster.key cannot be read"), "{what}");
        assert!(fix.contains("openssl rand -hex 32"), "{fix}");
    }
}
