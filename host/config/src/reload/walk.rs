//! Which names in which directories decide what a path leads to.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Symbolic links on the way to one file, as in the kernel.
const MAX_LINKS: usize = 40;

/// Directories, and the names in them that matter.
pub(super) type Interests = BTreeMap<PathBuf, BTreeSet<OsString>>;

pub(super) fn interests<'a>(files: impl IntoIterator<Item = &'a PathBuf>) -> Interests {
    let mut interests = Interests::new();
    for file in files {
        if let Ok(absolute) = std::path::absolute(file) {
            walk(&absolute, &mut interests);
        }
    }
    interests
}

/// Follows the path as the kernel does. Names that matter: each symbolic link, the file itself, and the first part that
/// does not exist.
fn walk(path: &Path, interests: &mut Interests) {
    let own = |component: Component<'_>| component.as_os_str().to_owned();
    let mut rest: VecDeque<OsString> = path.components().map(own).collect();
    let mut at = PathBuf::new();
    let mut links = 0_usize;
    while let Some(name) = rest.pop_front() {
        let next = at.join(&name);
        if name == ".." {
            at.pop();
            continue;
        }
        let kind = fs::symlink_metadata(&next).map(|metadata| metadata.file_type());
        match kind {
            Ok(kind) if kind.is_symlink() && links < MAX_LINKS => {
                links = links.saturating_add(1);
                interests.entry(at.clone()).or_default().insert(name);
                let Ok(target) = fs::read_link(&next) else { return };
                // A target from the root starts over: joining the root replaces what is there.
                for component in target.components().rev().map(own) {
                    rest.push_front(component);
                }
            }
            Ok(kind) if kind.is_dir() => at = next,
            // The file, the end of what exists, or a loop of links.
            _ => {
                interests.entry(at).or_default().insert(name);
                return;
            }
        }
    }
}
