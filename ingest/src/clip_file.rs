//! The file of a clip, opened so that nothing else can be opened by its name.
//!
//! Where a path leads is asked of the kernel after it was followed, not of the text before: links
//! and renames in between change nothing. Nothing is read, waited for or set going by the look
//! (`O_PATH`). A file that is no file of a disk is refused wherever it lies: reading some of
//! `/proc` blocks for ever.

use crate::clip::ClipError;
use rustix::fs::{CWD, Mode, OFlags, fstat, fstatfs, openat};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// Said of every file that may not be named, is not there or can't be read, so that nobody learns
/// from it which files there are.
const REFUSED: &str = "it is refused, missing or not readable: only vas.toml may name any file, other \
                       cameras are made of regular files below one of its `[cameras] file_roots`";

/// File systems whose files are made by the kernel as they are read: linux/magic.h.
const MADE_BY_THE_KERNEL: [u64; 20] = [
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0x7363_6673, // securityfs
    0x6165_676c, // pstore
    0xcafe_4a11, // bpf
    0x6265_6570, // configfs
    0x1cd1,      // devpts
    0x6e73_6673, // nsfs
    0xf97c_ff8c, // selinuxfs
    0xde5e_81e4, // efivarfs
    0x4249_4e4d, // binfmt_misc
    0x6573_5543, // fusectl
    0x4341_5d53, // smackfs
    0x5a3c_69f0, // apparmorfs
    0x1980_0202, // mqueue
    0x0904_1934, // anonymous inodes
];

/// Where a camera's file may lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Places {
    /// Anywhere: vas.toml names it.
    Anywhere,
    /// Below one of these directories, wherever links lead.
    Below(Arc<[PathBuf]>),
}

/// Opens the file of a clip.
///
/// # Errors
/// [`ClipError`]; outside of [`Places::Anywhere`] it does not say whether there is such a file.
pub fn open(path: &Path, places: &Places) -> Result<File, ClipError> {
    let error = |detail: &str| ClipError { path: path.to_owned(), detail: detail.to_owned() };
    let Places::Below(roots) = places else {
        return open_any(path, |_| true).map_err(|why| error(&why));
    };
    let roots: Vec<PathBuf> = roots
        .iter()
        .flat_map(|root| [Some(root.clone()), fs::canonicalize(root).ok()])
        .flatten()
        .collect();
    let below = |path: &Path| roots.iter().any(|root| path.starts_with(root));
    // What lies elsewhere is not even looked for.
    if path.components().any(|part| part == Component::ParentDir) || !below(path) {
        return Err(error(REFUSED));
    }
    open_any(path, below).map_err(|_| error(REFUSED))
}

/// Opens a regular file of a disk, when the place where it really lies is `allowed`.
fn open_any(path: &Path, allowed: impl Fn(&Path) -> bool) -> Result<File, String> {
    let unreadable = |e: std::io::Error| format!("{e}; check the path and its permissions");
    let look = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let look = look.map_err(|e| unreadable(e.into()))?;
    let itself = format!("/proc/self/fd/{}", look.as_raw_fd());
    let place = fs::read_link(&itself).map_err(unreadable)?;
    if !allowed(&place) {
        return Err("it may not be named".into());
    }
    let found = fstat(&look).map_err(|e| unreadable(e.into()))?;
    let system = fstatfs(&look).map_err(|e| unreadable(e.into()))?;
    if rustix::fs::FileType::from_raw_mode(found.st_mode) != rustix::fs::FileType::RegularFile
        || MADE_BY_THE_KERNEL.contains(&u64::try_from(system.f_type).unwrap_or(u64::MAX))
    {
        return Err("it is not a regular file; name a video file".into());
    }
    if found.st_size <= 0 {
        return Err("it is empty; name a video file".into());
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = openat(CWD, itself, flags, Mode::empty());
    file.map(File::from).map_err(|e| unreadable(e.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    struct Tree {
        home: tempfile::TempDir,
        places: Places,
    }

    impl Tree {
        /// `roots/clips` and `roots/more` are allowed; beside them lies `secret.mp4`.
        fn new() -> Tree {
            let home = tempfile::tempdir().unwrap();
            for name in ["clips/deep", "more", "clips-of-others"] {
                fs::create_dir_all(home.path().join(name)).unwrap();
            }
            for name in ["secret.mp4", "clips/a.mp4", "clips/deep/b.mp4", "clips-of-others/c.mp4"] {
                fs::write(home.path().join(name), name).unwrap();
            }
            let root = |name| home.path().join(name);
            let places = Places::Below([root("clips"), root("more"), root("missing")].into());
            Tree { home, places }
        }

        fn at(&self, name: &str) -> PathBuf {
            self.home.path().join(name)
        }

        fn read(&self, name: &str) -> Result<String, ClipError> {
            open(&self.at(name), &self.places).map(|file| std::io::read_to_string(file).unwrap())
        }
    }

    #[test]
    fn files_below_the_roots_are_opened_and_no_others() {
        let tree = Tree::new();
        assert_eq!(tree.read("clips/a.mp4").unwrap(), "clips/a.mp4");
        assert_eq!(tree.read("clips/deep/b.mp4").unwrap(), "clips/deep/b.mp4");
        symlink(tree.at("clips/deep/b.mp4"), tree.at("more/inside.mp4")).unwrap();
        assert_eq!(tree.read("more/inside.mp4").unwrap(), "clips/deep/b.mp4", "from root to root");
        // A root that is a link, by both of its names.
        symlink(tree.at("clips-of-others"), tree.at("link")).unwrap();
        let linked = Places::Below([tree.at("link")].into());
        assert!(open(&tree.at("link/c.mp4"), &linked).is_ok());
        assert!(open(&tree.at("clips-of-others/c.mp4"), &linked).is_ok());

        // Everything else has one answer, whatever is there.
        symlink(tree.at("secret.mp4"), tree.at("clips/out.mp4")).unwrap();
        symlink("../secret.mp4", tree.at("clips/out-relative.mp4")).unwrap();
        symlink(tree.at("clips/a.mp4"), tree.at("into.mp4")).unwrap();
        symlink(tree.home.path(), tree.at("clips/up")).unwrap();
        symlink(tree.at("nowhere"), tree.at("clips/dangling.mp4")).unwrap();
        symlink("/proc/self/root", tree.at("clips/magic")).unwrap();
        let unreadable = tree.at("clips/unreadable.mp4");
        fs::write(&unreadable, "x").unwrap();
        fs::set_permissions(&unreadable, fs::Permissions::from_mode(0o0)).unwrap();
        let mut refused = vec![
            "secret.mp4",
            "missing.mp4",
            "clips",
            "clips/",
            "clips/deep",
            "clips/missing.mp4",
            "clips/../secret.mp4",
            "clips/deep/../a.mp4",
            "into.mp4",
            "clips/out.mp4",
            "clips/out-relative.mp4",
            "clips/up/secret.mp4",
            "clips/magic/etc/passwd",
            "clips/dangling.mp4",
            "clips-of-others/c.mp4",
        ];
        if !rustix::process::geteuid().is_root() {
            refused.push("clips/unreadable.mp4");
        }
        for name in refused {
            assert_eq!(tree.read(name).unwrap_err().detail, REFUSED, "{name}");
        }
        for path in ["/etc/passwd", "/proc/self/environ", "/", "relative.mp4", ""] {
            let error = open(Path::new(path), &tree.places).unwrap_err();
            assert_eq!(error.detail, REFUSED, "{path}");
        }
        let none = Places::Below([].into());
        assert_eq!(open(&tree.at("clips/a.mp4"), &none).unwrap_err().detail, REFUSED);
        assert!(REFUSED.contains("[cameras] file_roots"), "the remedy is told");
    }

    #[test]
    fn what_is_no_file_of_a_disk_is_refused_at_once_whoever_names_it() {
        let tree = Tree::new();
        fs::write(tree.at("clips/empty.mp4"), "").unwrap();
        let pipe = tree.at("clips/pipe.mp4");
        rustix::fs::mknodat(CWD, &pipe, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        let all = Places::Below([PathBuf::from("/")].into());
        for path in [
            // Reading it waits for the kernel to have something to say.
            Path::new("/proc/kmsg"),
            Path::new("/proc/self/cmdline"),
            Path::new("/sys/kernel/mm/transparent_hugepage/enabled"),
            Path::new("/dev/zero"),
            Path::new("/"),
            &pipe,
            &tree.at("clips/empty.mp4"),
        ] {
            let error = open(path, &Places::Anywhere).unwrap_err();
            assert!(
                ["not a regular file", "empty", "No such file"]
                    .iter()
                    .any(|part| error.detail.contains(part)),
                "{error}"
            );
            assert_eq!(open(path, &all).unwrap_err().detail, REFUSED, "{}", path.display());
        }
        // Said by whom the file system is known anyway.
        let missing = open(&tree.at("missing.mp4"), &Places::Anywhere).unwrap_err();
        assert!(missing.detail.contains("No such file"), "{missing}");
        let file = open(&tree.at("secret.mp4"), &Places::Anywhere).unwrap();
        // No child inherits it, and nothing that it may turn into is waited for.
        assert!(rustix::io::fcntl_getfd(&file).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        assert!(rustix::fs::fcntl_getfl(&file).unwrap().contains(OFlags::NONBLOCK));
    }
}
