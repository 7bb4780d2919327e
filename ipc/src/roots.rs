//! Whether the roots of a node are its user's own. Every process looks at its start: whoever can make
//! files in them may pose as any part of the node, show it pictures, and read what its cameras show.
//!
//! Not here: whether there is room, and whether a disk takes writes.

use crate::directories::Directories;
use base::limits::SOCKET_PATH_BYTES_MAX;
use rustix::io::Errno;
use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Magic number of tmpfs (statfs(2), linux/magic.h).
const TMPFS: u64 = 0x0102_1994;

/// Why a root can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// It can't be made or looked at.
    #[error(
        "{purpose} directory {} can't be used: {source}; make it writable for this user or set [dirs] \
         {purpose} in vas.toml", path.display()
    )]
    Io {
        /// Its key in the configuration.
        purpose: &'static str,
        /// It.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its name is a link, which somebody else may turn.
    #[error(
        "{purpose} directory {} is a symbolic link; set [dirs] {purpose} in vas.toml to where it leads",
        path.display()
    )]
    Link {
        /// Its key in the configuration.
        purpose: &'static str,
        /// It.
        path: PathBuf,
    },
    /// It is something else.
    #[error(
        "{purpose} directory {} is no directory; move it away or set [dirs] {purpose} in vas.toml",
        path.display()
    )]
    NoDirectory {
        /// Its key in the configuration.
        purpose: &'static str,
        /// It.
        path: PathBuf,
    },
    /// It belongs to somebody else.
    #[error(
        "{purpose} directory {} (mode {mode:04o}) belongs to user {owner}, not to {user}, who runs \
         this; set [dirs] {purpose} in vas.toml to a directory of this user", path.display()
    )]
    Owner {
        /// Its key in the configuration.
        purpose: &'static str,
        /// It.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// Whose it is.
        owner: u32,
        /// Who asks.
        user: u32,
    },
    /// Others may write to it.
    #[error(
        "{purpose} directory {path} has mode {mode:04o}: others than its owner may write to it; run \
         `chmod go-w {path}` or set [dirs] {purpose} in vas.toml to a directory of its own",
        path = path.display()
    )]
    Mode {
        /// Its key in the configuration.
        purpose: &'static str,
        /// It.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Rings would be written to a disk.
    #[error(
        "shm directory {} is on no tmpfs: pictures would be written to a disk, and files made anew could \
         not be told from those before; set [dirs] shm in vas.toml to a directory below /dev/shm, or \
         mount a tmpfs there", path.display()
    )]
    NoTmpfs {
        /// It, or the directory that it would be made in.
        path: PathBuf,
    },
    /// No socket has room for its path.
    #[error(
        "runtime directory {} is too long: the path of its socket {name} has {bytes} bytes, the kernel takes \
         {SOCKET_PATH_BYTES_MAX}; set [dirs] runtime in vas.toml to a shorter one", path.display()
    )]
    Long {
        /// It.
        path: PathBuf,
        /// A socket.
        name: &'static str,
        /// Of the socket's path.
        bytes: usize,
    },
}

impl Directories {
    /// Makes the runtime directory, mode 0700, when it is missing, and checks what is there of all
    /// three roots: they belong to this user, and nobody else may write to them. shm and runtime are no
    /// links; the state may lie elsewhere. shm is on a tmpfs.
    ///
    /// # Errors
    /// [`RootError`] names the directory, what is wrong and what to do.
    pub fn prepare(&self) -> Result<(), RootError> {
        for (name, path) in
            [("events.sock", self.events_socket()), ("ingest.sock", self.ingest_socket())]
        {
            let bytes = path.as_os_str().as_bytes().len();
            if bytes > SOCKET_PATH_BYTES_MAX {
                return Err(RootError::Long { path: self.runtime.clone(), name, bytes });
            }
        }
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.runtime);
        // What is there and is no directory is told by its name below.
        if let Err(error) = made
            && fs::symlink_metadata(&self.runtime).is_err()
        {
            return Err(io_error("runtime", &self.runtime)(error));
        }
        check("runtime", &self.runtime)?;
        check("shm", &self.shm)?;
        tmpfs(&self.shm)?;
        match fs::metadata(&self.state) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            found => own("state", &self.state, &found.map_err(io_error("state", &self.state))?),
        }
    }
}

fn io_error(purpose: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RootError {
    let path = path.to_owned();
    move |source| RootError::Io { purpose, path, source }
}

/// Whether a root, if it is there, is a directory of this user alone, and no link.
///
/// # Errors
/// [`RootError`].
pub(crate) fn check(purpose: &'static str, path: &Path) -> Result<(), RootError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_error(purpose, path)(error)),
        Ok(found) if found.is_symlink() => Err(RootError::Link { purpose, path: path.to_owned() }),
        Ok(found) => own(purpose, path, &found),
    }
}

fn own(purpose: &'static str, path: &Path, found: &Metadata) -> Result<(), RootError> {
    let (mode, owner) = (found.mode() & 0o7777, found.uid());
    let (path, user) = (path.to_owned(), rustix::process::geteuid().as_raw());
    if !found.is_dir() {
        return Err(RootError::NoDirectory { purpose, path });
    }
    if owner != user {
        return Err(RootError::Owner { purpose, path, mode, owner, user });
    }
    if mode & 0o022 != 0 {
        return Err(RootError::Mode { purpose, path, mode });
    }
    Ok(())
}

/// Whether the nearest directory that exists is on a tmpfs.
fn tmpfs(shm: &Path) -> Result<(), RootError> {
    for path in shm.ancestors() {
        match rustix::fs::statfs(path) {
            Ok(system) if u64::try_from(system.f_type) == Ok(TMPFS) => return Ok(()),
            Ok(_) => return Err(RootError::NoTmpfs { path: path.to_owned() }),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(io_error("shm", path)(error.into())),
        }
    }
    Err(RootError::NoTmpfs { path: shm.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    /// A node that is as it should be, made as a user would.
    fn node() -> (tempfile::TempDir, tempfile::TempDir, Directories) {
        let home = tempfile::tempdir().unwrap();
        let memory = tempfile::tempdir_in("/dev/shm").unwrap();
        let directories = Directories {
            shm: memory.path().join("rings"),
            runtime: home.path().join("run/vas"),
            state: home.path().join("state"),
        };
        (home, memory, directories)
    }

    fn told(directories: &Directories) -> String {
        directories.prepare().unwrap_err().to_string()
    }

    #[test]
    fn what_is_missing_is_no_fault_and_runtime_is_made_for_this_user_alone() {
        let (_home, _memory, node) = node();
        node.prepare().unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&node.runtime), 0o700);
        assert!(!node.shm.exists() && !node.state.exists());
        for path in [&node.shm, &node.state] {
            fs::create_dir(path).unwrap();
        }
        node.prepare().unwrap();
    }

    #[test]
    fn a_root_that_others_may_write_to_or_own_is_refused_whichever_it_is() {
        let (_home, _memory, node) = node();
        let set = |path: &Path, mode| fs::set_permissions(path, PermissionsExt::from_mode(mode));
        for (purpose, path) in
            [("runtime", &node.runtime), ("shm", &node.shm), ("state", &node.state)]
        {
            fs::create_dir_all(path).unwrap();
            for mode in [0o720, 0o702, 0o1777] {
                set(path, mode).unwrap();
                let text = told(&node);
                assert!(text.starts_with(&format!("{purpose} directory ")), "{text}");
                assert!(
                    text.contains(&format!("mode {mode:04o}")) && text.contains("chmod"),
                    "{text}"
                );
            }
            set(path, 0o750).unwrap();
            node.prepare().unwrap();
            if rustix::process::geteuid().is_root() {
                chown(path, Some(1), None).unwrap();
                let text = told(&node);
                assert!(text.starts_with(&format!("{purpose} directory ")), "{text}");
                assert!(text.contains("belongs to user 1, not to 0"), "{text}");
                chown(path, Some(0), None).unwrap();
            }
            fs::remove_dir(path).unwrap();
            fs::write(path, "").unwrap();
            assert!(told(&node).contains("is no directory"), "{}", told(&node));
            fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn only_the_state_may_be_a_link() {
        let (home, memory, node) = node();
        let elsewhere = [home.path().join("elsewhere"), memory.path().join("elsewhere")];
        elsewhere.iter().for_each(|path| fs::create_dir(path).unwrap());
        fs::create_dir(home.path().join("run")).unwrap();
        symlink(&elsewhere[0], &node.state).unwrap();
        node.prepare().unwrap();
        for (path, target) in [(&node.runtime, &elsewhere[0]), (&node.shm, &elsewhere[1])] {
            let _ = fs::remove_dir(path);
            symlink(target, path).unwrap();
            assert!(told(&node).contains("is a symbolic link"), "{}", told(&node));
            fs::remove_file(path).unwrap();
        }
        // One that leads nowhere is one all the same.
        fs::remove_dir(&node.runtime).unwrap();
        symlink(home.path().join("nowhere"), &node.runtime).unwrap();
        assert!(told(&node).contains("is a symbolic link"), "{}", told(&node));
        fs::remove_file(&node.runtime).unwrap();
        fs::set_permissions(&elsewhere[0], PermissionsExt::from_mode(0o777)).unwrap();
        assert!(told(&node).starts_with("state directory"), "where it leads is looked at");
    }

    #[test]
    fn rings_are_in_memory_also_where_their_directory_is_yet_to_be_made() {
        let (_home, _memory, node) = node();
        let on_disk = Directories { shm: "/proc/self/fd/rings".into(), ..node };
        let text = told(&on_disk);
        assert!(text.contains("/proc/self/fd is on no tmpfs"), "{text}");
    }

    #[test]
    fn a_runtime_directory_has_room_for_the_paths_of_its_sockets() {
        let (home, _memory, node) = node();
        let used = home.path().as_os_str().len() + "//ingest.sock".len();
        let fits = home.path().join("r".repeat(SOCKET_PATH_BYTES_MAX - used));
        let node = Directories { runtime: fits.clone(), ..node };
        node.prepare().unwrap();
        std::os::unix::net::UnixListener::bind(node.ingest_socket()).unwrap();
        let node = Directories {
            runtime: fits.with_file_name("r".repeat(SOCKET_PATH_BYTES_MAX - used + 1)),
            ..node
        };
        assert!(told(&node).contains("has 108 bytes, the kernel takes 107"), "{}", told(&node));
    }
}
