//! Clears a throw-away cluster away when the process that uses it ends, by whatever end.
//!
//! Statics are not dropped, and nothing runs after SIGKILL, so a small shell waits outside. It
//! holds the reading end of a pipe whose only writing end is in this process; the kernel closes that.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// `$1` is the directory to remove. The process number is read at the end, because PostgreSQL may
/// have been restarted in between; its file goes when PostgreSQL ends, and the number when the
/// dead process is collected, which in a container may be never.
const SCRIPT: &str = r#"
read -r _
file="$1/postgres/data/postmaster.pid"
pid=$(head -n 1 "$file" 2>/dev/null)
if [ -n "$pid" ]; then
    kill -QUIT "$pid" 2>/dev/null
    tries=0
    while [ -e "$file" ] && kill -0 "$pid" 2>/dev/null && [ "$tries" -lt 100 ]; do
        tries=$((tries + 1))
        sleep 0.05
    done
    [ -e "$file" ] && kill -KILL "$pid" 2>/dev/null
fi
rm -rf "$1" || { sleep 1; rm -rf "$1"; }
"#;

/// Clears away when dropped, too.
#[derive(Debug)]
pub(crate) struct Watchdog(Child);

impl Watchdog {
    pub fn over(directory: &Path) -> io::Result<Self> {
        Command::new("/bin/sh")
            .args(["-c", SCRIPT, "throwaway-watchdog"])
            .arg(directory)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Neither a Ctrl-C nor a test runner that kills the group of its tests may hit it.
            .process_group(0)
            .spawn()
            .map(Self)
    }

    /// Clears away now, and returns when that is done.
    pub fn finish(mut self) -> io::Result<()> {
        // `wait` closes the pipe first.
        self.0.wait().map(|_| ())
    }
}
